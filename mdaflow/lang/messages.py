"""Everything that is said about a program that is wrong, or doubtful: one table.

The keys are stable names for programs that read them; the texts are for authors. What stands in
braces is filled in. An error keeps a program from running, a warning does not.
"""

from __future__ import annotations

ERRORS = {
    # the file
    "too-large": "larger than {most}",
    "files-too-large": "all files are larger together than {most}",
    "not-utf8": "this is not UTF-8; save the file as UTF-8",
    "control-character": "a control character has no place here",
    "too-many-words": "more than {most:,} words; a shorter file is needed",
    "too-many-rules": "more than {most:,} rules in one file",
    "too-deep": "this is nested more than {most} levels deep",
    "too-many-elifs": "more than {most} elif; write rules instead",
    "no-file": "this text is in no file, so it cannot name others",
    "outside": "'{path}' is not below the folder of the first file",
    "unreadable": "'{path}' cannot be read: {reason}",
    "imports-itself": "'{path}' imports itself",
    "imports-deep": "imports are more than {most} levels deep",
    "too-many-imports": "more than {most} imports",
    # syntax
    "unexpected": "unexpected '{word}': expected {expected}{hint}",
    "ends-early": "the {what} ends too early: expected {expected}{hint}",
    "missing-brace": "'{word}' cannot stand in a block: is a '}}' missing for the '{{' in "
    "line {line}?",
    "open-long-string": 'this long string is not closed; end it with """',
    "open-string": 'this string is not closed; end it with " on the same line, or use """',
    "open-regex": "this regular expression is not closed; end it with / on the same line, and "
    "write \\/ for a / in it",
    "bare-time": 'dates and times stand in quotes: "2026-12-31", "22:00"',
    "no-number": "this is no number; write 10, 2.5, 5K, 5M or 30 days",
    "single-quotes": 'strings are written in double quotes: "…"',
    "curly-quotes": 'these quotes are typographic; write straight ones: "…"',
    "line-comment": "a comment begins with #",
    "c-operator": "{word} is of another language; write '{meant}'",
    "semicolon": "statements need no ';'; leave it out",
    "meaningless": "{word} means nothing here{hint}",
    "sieve": "this is a Sieve script; its rules are written anew: see mdaflow-rules(5)",
    "procmail": "this is a procmailrc; its recipes are written anew: see mdaflow-rules(5), "
    "FOR USERS OF PROCMAIL",
    # strings
    "lone-brace": "a lone brace; write {brace}{brace} for a brace",
    "no-holes": "no {{hole}} can stand in this string; write {{{{ and }}}} for braces",
    "joined-lines": "a backslash does not join lines; write \\\\ for a backslash",
    "unknown-escape": "unknown escape \\{letter}; write \\\\ for a backslash",
    "no-character": "U+{code} is no character",
    "character-form": "write a character as \\u{{20AC}}",
    "no-hole": "this is no {{name}}, {{name|filter}} or {{header Name}}; write {{{{ for a brace",
    "no-filter": "'{word}' is no filter",
    "unknown-filter": "unknown filter '{name}'{hint}",
    "filter-number": "the filter '{name}' needs a number",
    "filter-no-number": "the filter '{name}' takes no number",
    # names
    "name-is-subject": "'{name}' is a subject; take another name",
    "name-has-dots": "'{name}': a name has no dots",
    "name-is-list": "there is a list '{name}' already",
    "name-is-variable": "there is a variable '{name}' already",
    "group-is-name": "the group '{name}' has the name of something else",
    "unknown-name": "unknown name '{name}'{hint}",
    "unknown-list": "unknown list '{name}'; lists are declared before their use{hint}",
    "variable-as-list": "'{name}' is a variable; write \"{{{name}}}\"",
    "list-as-subject": "'{name}' is a list: a test starts with a subject, as in: from in {name}",
    "unknown-score": "nothing is added to 'score.{name}' before this{hint}",
    "no-group": "there is no group {name} here: it needs a 'matches' with so many groups in the "
    "condition of this block",
    # subjects
    "unknown-subject": "unknown subject '{name}'{hint}",
    "unknown-part": "'{name}' has no part '{part}'; it has {parts}{hint}",
    "needs-argument": "'{name}' needs a name: {example}",
    "no-argument": "'{name}' takes no name",
    "no-field-name": "'{name}' is no name of a header field{hint}",
    "no-raw": "'raw' does not fit '{subject}'",
    "every-one": "'every' does not fit '{subject}', which is one truth",
    "question-form": "this is written: {example}",
    "where-place": "'where' belongs behind 'attachment', and not in itself",
    "not-a-truth": "'{subject}' is not true or false; say what it is compared with: is, "
    "contains, matches, in, =, exists …",
    # tests
    "relation": "'{subject}' is {type}: '{word}' does not fit; use {allowed}",
    "truth-compared": "'{subject}' is true or false by itself: leave out '{word}', or write 'not' "
    "before it",
    "otherwise-when": "'otherwise' needs a rule with 'when'",
    "no-modes": "'all' and 'exactly' are for text, not for numbers and dates",
    "needs-number": "a number is needed here, e.g. 5, 10K or 5M; text is compared with 'is'",
    "number-as-text": "a number cannot be compared so; write a string",
    "needs-list": "'in' needs a list: [\"…\"] or the name of one",
    "needs-moment": 'a date is needed here: "2026-12-31" or "2026-12-31 22:00", without holes',
    "needs-day": 'a day is needed here: "2026-12-31", without holes',
    "needs-clock": 'a time of day is needed here: "22:00", without holes',
    "regex-place": "a regular expression needs 'matches'",
    "regex-flag": "unknown flag '{flag}'; case counts only with c; s and m are as in RE2",
    "regex": "not a regular expression of RE2: {reason}",
    "regex-groups": "more than {most} groups; write (?:…) for those not captured",
    "glob-too-large": "this pattern is too large",
    "lists-too-long": "the lists of all tests up to this one are too long together",
    "patterns-too-large": "all patterns up to this one are too large together",
    "succeeds-place": "'succeeds' is for a command: command [\"program\"]",
    # statements
    "not-allowed": "'{verb}' is not allowed in these rules; {advice}",
    "also-makes-no-sense": "'also {verb}' makes no sense: nothing can follow it",
    "said-twice": "'{word}' is said twice",
    "unknown-flag": "unknown flag '{flag}'; known are {known}, and keywords such as \"$Work\"",
    "folder-control": "a folder name has no control characters",
    "folder-backslash": "a folder name has no backslash; mostly, / divides its levels",
    "folder-dot": 'no level of a folder name begins with a dot; write "{meant}"',
    "folder-empty": 'a folder name has no empty levels; write "{meant}"',
    "folder-absolute": 'a folder name does not begin with /; write "{meant}", or for a mailbox of '
    'the site "mbox:/…" or "maildir:/…"',
    "folder-path": 'a mailbox is named by a whole path without holes: "mbox:/var/mail/all"',
    "no-address": "'{address}' is no address; write \"user@example.org\"",
    "no-targets": "this list is empty",
    "program-literal": 'the program is the first of the list, without holes: ["/usr/bin/prog", …]',
    "learn-what": "learn spam, or learn ham",
    "every-short": "at most one reply a day goes to a sender; write: every 1 day, or more",
    "as-literal": "what these replies are called stands here, and nothing is put into it",
    "no-time": "a time above zero and below 100 years is needed here, e.g. 30 days",
    "header-form": 'write name and value: "X-Name: value"',
    "header-name": "'{name}' is no name of a header field{hint}",
    "header-protected": "'{name}' is not edited by rules",
    "remove-what": "say which fields go, without 'not' and 'where'",
    "score-subject": "matches are counted in text; '{subject}' is {type}",
    # test blocks
    "one-message": 'a test has one message """…""", or message "FILE"',
    "expects-nothing": 'a test expects something: expect deliver to "…"',
    "expects-between": "'between' says when a reply is sent, not what it says; leave it out here",
    "given-value": "'{name}' is {type}; this is not: {value}; write {form}",
    "unknown-rule": 'there is no rule "{name}"{hint}',
}

WARNINGS: dict[str, str] = {
    # what never happens
    "unreachable": "nothing comes here: the run always ends at {where}",
    "flag-late": "the run has ended at {where}, before this flag is set; write: {text} with flag …",
    "shadowed": "this never holds: all that it takes was taken at {where}; put it before that, or "
    "leave it out",
    "rule-twice": "the rule at {where} has this name too; traces and logs cannot tell them apart",
    "reject-after-copy": "a reject is an error after 'also' at {where}: test first, copy then",
    "copy-again": "this makes no second copy: the next action stores the same there; leave it out",
    "flag-undone": "nothing was stored since the flag '{flag}' was set at {where}; leave both out",
    # conditions that say nothing
    "empty-range": "nothing is between these: the smaller or earlier one stands first",
    "out-of-range": "no '{subject}' is so: it is {range}",
    "always": "every '{subject}' passes this; write '{instead}', or leave it out",
    "contradiction": "'{subject}' would have to be several things at once; did you mean 'or'?",
    "always-other": "'{subject}' is always other than one of these; did you mean 'and'?",
    "contrary": "this and its contrary, joined by '{word}', are always {value}",
    "no-entries": "this list is empty: nothing is in it",
    "unknown-fact": "nobody tells '{fact}' here: it is unknown, and {outcome}",
    "nobody-learns": "nobody learns here: this does nothing",
    # headers and values
    "mistyped-header": "no common header field is called '{name}'; did you mean '{known}'?",
    "header-address": "this field has names and brackets beside the address; test '{subject}' "
    "instead of 'header \"{field}\"'",
    "part-of-address": "'is' compares the address as a whole, which '{value}' is not{advice}",
    "list-entry": '\'{value}\' is no entry for addresses, which are "a@d", "@d", ".d" or '
    '"word@"{advice}',
    "domain-at": 'a domain has no @; write "{rest}"',
    "domain-dot": 'a domain does not begin with a dot; write: ends with "{value}"',
    "user-at": 'what stands before the @ has none; write "{rest}", or test the whole address',
    "extension-dot": 'an extension is what follows the last dot; write "{rest}"',
    "type-form": 'a type has two parts, as in "application/pdf"; did you mean: contains "{value}"?',
    "network": "an address of a client is compared as text, not as part of a network; did you "
    'mean: starts with "{rest}"?',
    "weekday": '\'{value}\' is no weekday; they are "monday" to "sunday"{hint}',
    "hidden-character": "U+{point} ({name}) cannot be seen here; take it out, or write "
    "\\u{{{point}}}",
    "dollar": "'{sign}' stands for itself; a value is put in a string so: {{{name}}}",
    # patterns
    "star": "'*' stands for itself behind this operator; write: matches \"{value}\"",
    "glob-plain": "a pattern without * and ? is the whole value; write 'is' or 'contains', or "
    '"*{value}*"',
    "glob-regex": "in a string '{sign}' stands for itself; a regular expression stands between "
    "slashes: matches /…/",
    "regex-dot": "'.' is any character in a regular expression; write \\. for a dot",
    "regex-anchor": "nothing is on that side of '{sign}', so this part can match nothing; write "
    "\\{sign} for the character",
    "regex-nothing": "no character is in '{sign}', so this part can match nothing",
    "regex-everything": "this matches every text: it needs none; write 'exists', or what the "
    "text shall have",
    "exactly-caseless": "'exactly' and '(?i)' are contrary; leave one out",
    # names
    "unused-list": "the list '{name}' is never used",
    "unused-variable": "the variable '{name}' is never used",
    "unused-group": "the group '{name}' is never used; write (?:…) or (…)",
    "unused-score": "'score.{name}' is never tested",
    "empty-list": "the list '{name}' is empty: no test with it holds",
    "duplicate-entry": "'{value}' is in this list twice",
    # folders, flags, addresses
    "folder-inbox": 'folders are not below the inbox here; write "{rest}"',
    "folder-home": 'this is a folder of the mailbox, not a path; write "{rest}"',
    "folder-levels": 'a dot divides no levels here, and may be stored as -; write "{meant}"',
    "folder-slash": 'no folder name has a / here; write "{meant}"',
    "folder-alike": "'{folder}' and '{other}' ({where}) are two folders; write both alike",
    "flag-backslash": "'{flag}' is a word of your own; did you mean the flag \"\\\\{flag}\"?",
    "program-words": "no shell reads this: it is the name of one program; write "
    '["/usr/bin/prog", "arg", …]',
    "forward-self": "this sends the message back to yourself ('{address}')",
    "alias-self": "'{name}' stands for itself: this does nothing",
    "reply-from": "'{address}' is none of your addresses, as far as these rules know",
}
