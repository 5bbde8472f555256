"""What scanners say, as answers to facts: `virus.*`, `spam.*`, `finding`.

`SHARED` is what the scanners of the site say of a message, the same for all its recipients; the
process of an account asks the worker for it. What a recipient adds to it, such as who is known, is
added here, where the user's home is at hand.

A scanner that cannot say puts the message off, where its `on_error` is `defer` and the message is
really delivered. Else what it is asked is unknown, and the other scanners count.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from mdaflow.engine.context import Fact
from mdaflow.errors import UNSCANNED, TempFail
from mdaflow.mail.message import Message
from mdaflow.scan import Hit, Report
from mdaflow.scan.verdict import Verdict, combined, spam_status, total

from .scanning import OWN, STOPPED, Post, Scanning, names

if TYPE_CHECKING:
    from .answers import About, Answer, Answers

PUT_OFF = "put off"
"""Where it is noted in `About.told` why a message would be put off."""

_Provider = Callable[["Answers", Fact, "About"], "Answer"]


# --- what all recipients share -----------------------------------------------------------------


def _verdict(answers: Answers, looks_for: str, fact: Fact, about: About) -> Verdict | None:
    """What those say who look for something; None when nobody does. Raises TempFail."""
    told = about.told
    if looks_for not in told:
        scanning, message = answers.scanning, _message(fact, about)
        found = scanning.reports(looks_for, message, fact.envelope, spared=about.spared)
        verdict = combined(names(found)) if found else None
        if not (verdict and verdict.viruses):
            _refuse(found, about)
        told[looks_for] = verdict
    verdict = told[looks_for]
    assert verdict is None or isinstance(verdict, Verdict)
    return verdict


def _message(fact: Fact, about: About) -> Message:
    """As it came: scanners look once."""
    return about.message or fact.message


def _refuse(found: Sequence[tuple[Post, Report]], about: About) -> None:
    """Put mail off that a scanner could not look at, if it is one on which it depends.

    When nothing is really delivered it is noted, so that whoever tries can be told.
    """
    for post, report in found:
        if report.unscanned not in ("", STOPPED) and post.on_error == "defer":
            error = TempFail(UNSCANNED, f"{post.name}: {report.unscanned}")
            if about.really:
                raise error
            about.told.setdefault(PUT_OFF, error)


def _of_viruses(get: Callable[[Verdict], Answer]) -> _Provider:
    def answer(answers: Answers, fact: Fact, about: About) -> Answer:
        verdict = _verdict(answers, "virus", fact, about)
        return None if verdict is None else get(verdict)

    return answer


def _is_found(verdict: Verdict) -> Answer:
    if verdict.viruses:
        return [True]
    return None if verdict.unscanned else [False]  # nobody knows that it is clean


def _spam_hits(answers: Answers, fact: Fact, about: About) -> Answer:
    """The hits of the site's scanners, then who could not say; as words, for other processes."""
    verdict = _verdict(answers, "spam", fact, about)
    if verdict is None:
        return None
    return [[list(hit) for hit in verdict.hits], list(verdict.unscanned)]


def _finding(answers: Answers, fact: Fact, about: About) -> Answer:
    """What a scanner has found, by the name of that: the scanner's, and what follows a dot."""
    name = fact.arguments[0]
    post = answers.scanning.named(name.partition(".")[0])
    if post is None:
        return None
    report = answers.scanning.report(
        post, _message(fact, about), fact.envelope, spared=about.spared
    )
    _refuse([(post, report)], about)
    return None if report.unscanned else list(report.findings.get(name, ()))


def _unscanned(answers: Answers, fact: Fact, about: About) -> Answer:
    """Whose mail is to be kept back, and who could not look at it: `clamd: timed out`.

    What has stopped mdaflow would do so again, so it is kept back where others would wait.
    """
    scanning, message = answers.scanning, _message(fact, about)
    asked = [post for post in scanning.posts if post.on_error == "quarantine" or _waits(post)]
    reports = (
        (post, scanning.report(post, message, fact.envelope, spared=about.spared)) for post in asked
    )
    held = [(p, report) for p, report in reports if not _waits(p) or report.unscanned == STOPPED]
    return list(combined(names(held)).unscanned) if asked else None


def _waits(post: Post) -> bool:
    """Does mail wait until it can look for viruses?"""
    return post.on_error == "defer" and "virus" in post.looks_for


# --- what a recipient adds ---------------------------------------------------------------------


def hits_of(
    answers: Answers, fact: Fact, about: About
) -> tuple[tuple[Hit, ...], tuple[str, ...]] | None:
    """What speaks for and against spam, for this recipient, and who could not say; None when
    nobody looks."""
    told = about.told
    if "hits" not in told:
        found = answers.answer(fact._replace(name="spam.hits", arguments=()), about)
        told["hits"] = None
        if found is not None:
            hits, unscanned = found
            all_hits = tuple(Hit(*hit) for hit in hits)
            if answers.own is not None:
                from .spam import for_user

                all_hits = for_user(answers, answers.own, all_hits, fact, about)
            told["hits"] = all_hits, tuple(unscanned)
    found = told["hits"]
    assert found is None or isinstance(found, tuple)
    return found


def _learned(answers: Answers, fact: Fact, about: About) -> Answer:
    """How sure what the site has learned is that a message is spam."""
    judged = answers.own and answers.own.judge(_message(fact, about))
    return [round(judged.probability, 4)] if judged else None


def _bayes(answers: Answers, fact: Fact, about: About) -> Answer:
    """The same by what the user has learned, if that is enough to tell."""
    if answers.own is not None and about.user is not None:
        judged = answers.own.judge_for(about.user, _message(fact, about))
        if judged is not None:
            return [round(judged.probability, 4)]
    return answers.answer(fact._replace(name="spam.learned"), about)


def required_of(answers: Answers, about: About) -> float:
    """The score from which on mail is spam for this recipient."""
    return (about.user and about.user.spam_required) or answers.required


def _of_spam(
    get: Callable[[float, tuple[Hit, ...], tuple[str, ...]], Sequence[Any]],
) -> _Provider:
    def answer(answers: Answers, fact: Fact, about: About) -> Answer:
        found = hits_of(answers, fact, about)
        return None if found is None else get(required_of(answers, about), *found)

    return answer


class Seen(NamedTuple):
    """What scanners say of a message to a recipient, for a person to read."""

    virus: str
    """The status; empty when nobody looks for viruses."""
    required: float
    hits: tuple[Hit, ...] | None
    """None when nobody looks for spam."""
    unscanned: tuple[str, ...]

    @property
    def score(self) -> float:
        """Of all hits together."""
        return total(self.hits or ())


def seen(answers: Answers, fact: Fact, about: About) -> Seen:
    """What scanners say, of a fact about the message. Raises TempFail if it is really delivered."""
    status = answers.answer(fact._replace(name="virus.status"), about)
    hits, unscanned = hits_of(answers, fact, about) or (None, ())
    viruses = about.told.get("virus") or Verdict()
    missing = (*viruses.unscanned, *unscanned)
    return Seen(status[0] if status else "", required_of(answers, about), hits, missing)


SHARED: dict[str, _Provider] = {
    "virus.found": _of_viruses(_is_found),
    "virus.name": _of_viruses(lambda verdict: verdict.viruses),
    "virus.status": _of_viruses(lambda verdict: [verdict.virus_status]),
    "virus.unscanned": _of_viruses(lambda v: [bool(v.unscanned) and not v.viruses]),
    "spam.hits": _spam_hits,
    "spam.learned": _learned,
    "finding": _finding,
    "unscanned": _unscanned,
}
"""What is the same for all recipients."""


def unanswered(scanning: Scanning) -> set[str]:
    """The facts that nobody answers, as nobody looks. Raises ConfigError."""
    kinds = [kind for kind in ("virus", "spam") if not scanning.posted(kind)]
    found = {name for name in PROVIDERS for kind in kinds if name.split(".")[0] == kind}
    others = any(post.name != OWN for post in scanning.posts)
    return found if others else found | {"finding", "unscanned"}


PROVIDERS: dict[str, _Provider] = {
    **SHARED,
    "spam": _of_spam(lambda required, hits, missing: [total(hits) >= required]),
    "spam.score": _of_spam(lambda required, hits, missing: [total(hits)]),
    "spam.bayes": _bayes,
    "spam.symbols": _of_spam(lambda required, hits, missing: [hit.name for hit in hits]),
    "spam.status": _of_spam(lambda required, hits, missing: [spam_status(hits, required, missing)]),
    "spam.unscanned": _of_spam(lambda required, hits, missing: [bool(missing)]),
}
"""A fact -> who answers it."""
