"""Alias files as systems ship them and as people write them, and who is asked of each.

`{root}` is a folder with the lists below it. Users are ann, bob, carl @example.org.
"""

from __future__ import annotations

LISTS = {
    "staff": b"# all of us\nann\nbob, carl@example.org\n\neve@elsewhere.example",
    "quoted": b'"joe smith"@elsewhere.example\nEve Smith <eve@elsewhere.example>\n',
    "nested": b":include:{root}/staff\ndora@elsewhere.example\n",
    "dos": b"ann\r\nbob\r\n",
    "empty": b"",
    "comments": b"# nobody\n#\n",
}
"""Files that an :include: names."""

FILES: dict[str, bytes] = {
    "debian": b"""\
# /etc/aliases
mailer-daemon: postmaster
postmaster: root
nobody: root
hostmaster: root
usenet: news
news: root
webmaster: root
www: root
ftp: root
abuse: root
noc: root
security: root
root: ann
""",
    "mailman": b"""\
## members mailing list
members:              "|/usr/lib/mailman/mail/mailman post members"
members-admin:        "|/usr/lib/mailman/mail/mailman admin members"
members-bounces:      "|/usr/lib/mailman/mail/mailman bounces members"
members-owner:        "|/usr/lib/mailman/mail/mailman owner members"
mailman-loop:         /var/lib/mailman/data/owner-bounces.mbox
""",
    "majordomo": b"""\
majordomo:      "|/usr/lib/majordomo/wrapper majordomo"
owner-majordomo: ann,
majordomo-owner: ann
# a list
test:           "|/usr/lib/majordomo/wrapper resend -l test -h mx.example.org test-outgoing"
test-outgoing:  :include:{root}/staff
owner-test:     bob
test-request:   "|/usr/lib/majordomo/wrapper request-answer test"
test-approval:  owner-test
owner-test-outgoing: owner-test
""",
    "cyrus": b"""\
cyrus:          ann
bb:             "|/usr/lib/cyrus/bin/deliver -q -a \\"bob\\" bb.general"
spool:          "|/usr/lib/cyrus/bin/deliver -a ann -m user.ann.spam"
""",
    "sendmail": b"""\
# sendmail's own
MAILER-DAEMON:  postmaster
postmaster:     root
bin:            root
daemon:         root
root:           ann
decode:         "|/usr/bin/uudecode"
dumper:         root
operator:       "ann", bob
nobody:         /dev/null
manager:        root
vacationer:     \\bob, "|/usr/bin/vacation bob"
""",
    "exim": b"""\
gone:           :fail: 5.2.1 Gone fishing, for good
short:          :fail: no
later:          :defer: come back
hole:           :blackhole:
both:           ann, :blackhole:
""",
    "vacation": b"""\
plain:  \\ann
other:  \\bob, carl
pipes:  |/usr/bin/prog
piped:  | "/usr/bin/prog -x"
words:  "|/usr/bin/prog 'a b' c,d"
shell:  "|IFS=' ' && exec /usr/bin/prog || exit 75"
escape: "|/usr/bin/prog \\"a b\\" \\\\x"
box:    /var/mail/box
folder: /var/mail/folder/
many:   "/var/mail/a b", /var/mail/c,"|/usr/bin/prog", ann ,bob,,carl,
""",
    "lines": b"""\
one:    ann,
        bob
two:
    ann
\t, bob
# a comment
three:  ann,
# in between
  bob,

 \t# and one that is indented
\tcarl
four:ann
five  :  bob
six\t:\tcarl
SEVEN: ann
seven-up: Bob
nine: ann \t
last: carl""",
    "names": b"""\
a+b: ann
a.b: ann
a-b: ann
a=b: ann
a&b: ann
a/b: ann
a_b: ann
a'b: ann
a!b: ann
"a b": ann
"a:b": ann
"quoted": bob
"a\\\\b": bob
"a\\"b": bob
123: ann
loop: pool
pool: loop
bob: bob, eve@elsewhere.example
carl: \\carl
full: ann@example.org
far: eve@elsewhere.example
angle: <ann>
named: Ann Smith <ann@example.org>
phrase: "Smith, Ann" <ann@example.org>
address: "bob@example.org"
inquotes: "eve smith"@elsewhere.example
detail: ann+x
nowhere: nosuchuser
mixed: nosuchuser, ann
""",
    "eight-bit": "jürgen: ann\nJÖRG: bob\nÿ: carl\nother: jürgen\n".encode(),
    "crlf": b"sales: ann,\r\n   bob\r\nall: carl\r\n",
    "bom": b"\xef\xbb\xbfsales: ann\n",
    "twice": b"sales: ann\nsales: bob\n",
    "includes": b"""\
staff:  :include:{root}/staff
quoted: ":include:{root}/quoted"
nested: :include:{root}/nested
dos:    :include:{root}/dos
more:   :include:{root}/staff, dora@elsewhere.example
empty:  :include:{root}/empty
missing: :include:{root}/no-such-list
spaced: :include: {root}/staff
upper:  :INCLUDE:{root}/staff
owner-staff: carl
""",
}
"""Alias files by what they are."""

WRONG: dict[bytes, str] = {
    "jürgen: ann\n".encode("latin-1"): "1: this is no UTF-8",
    b"x: y\nann bob\n": "2: this is no `name: targets`",
    b"x: ann\n   bob\n": "1: ann bob is no address: is there a comma missing?",
    b'x: ann, "|/usr/bin/prog\n': "1: a quote is not closed",
    b"x: ann\ny: :includ:/x\n": "2: :includ:/x is none of",
    b"x: ann,\n # why\n bob, # me\n": "3: `#` begins a comment only at the start of a line",
    b"x:\n": "1: no targets",
    b"x: ann\0\n": "1: a control character",
}
"""What others read somehow, or pass over, and we refuse, with the line."""

VIRTUAL = b"""\
# people
ann@virt.example        ann@example.org
sales@virt.example      ann@example.org, bob@example.org,
                        eve@elsewhere.example,
# a comment in between
  carl@example.org
Upper@Virt.Example
    BOB@example.org
one+x@virt.example      carl@example.org
one@virt.example        bob@example.org
two@virt.example        sales@virt.example
"joe smith"@virt.example bob@example.org
a=b&c@virt.example      ann@example.org
@virt.example           carl@example.org
@old.example            @virt.example
"""
"""A table of virtual(5), and who is asked of it."""
OF_VIRTUAL = (
    *("ann@virt.example", "ANN@VIRT.EXAMPLE", "ann+x@virt.example", "sales@virt.example"),
    *("upper@virt.example", "one+x@virt.example", "one+y@virt.example", "one@virt.example"),
    *("two@virt.example", '"joe smith"@virt.example', "a=b&c@virt.example"),
    *("whoever@virt.example", "whoever+x@virt.example", "one@old.example", "whoever@old.example"),
)

REGEXP = rb"""
/^list-([a-z]+)@reg\.example$/          $1@example.org
/^(a.*)-(.*)@reg\.example$/             ${1}@example.org, $(2)@elsewhere.example
/^Case@reg\.example$/i                  ann@example.org
# the colon as a delimiter, and a dollar
:^colon/slash@reg\.example$:            bob@example.org
/^(one|two)@reg\.example$/
    carl@example.org
/^first@/                               ann@example.org
/^first@reg/                            bob@example.org
/^((x+)(y*))+@reg\.example$/            $3$2@elsewhere.example
"""
"""A table of regexp_table(5), and who is asked of it."""
OF_REGEXP = (
    *("list-ann@reg.example", "LIST-Bob@Reg.Example", "ann-b@reg.example", "a-b-c@reg.example"),
    *("Case@reg.example", "case@reg.example", "colon/slash@reg.example", "two@reg.example"),
    *("first@reg.example", "xxyx@reg.example", "nobody@reg.example"),
)

FORWARDS: dict[str, bytes] = {
    "one": b"eve@elsewhere.example\n",
    "no end": b"eve@elsewhere.example",
    "two": b"eve@elsewhere.example, bob\n",
    "lines": b"# away\n\neve@elsewhere.example\n  # and\nbob@example.org\n",
    "a copy": b"\\ann, eve@elsewhere.example\n",
    "a copy below": b"\\ann\neve@elsewhere.example\n",
    "in quotes": b'"\\ann", "eve@elsewhere.example"\n',
    "by name": b"ann, bob\n",
    "by address": b"ann@example.org\neve@elsewhere.example\n",
    "vacation": b'\\ann, "|/usr/bin/vacation ann"\n',
    "procmail": b"\"|IFS=' ' && exec /usr/bin/procmail -f- || exit 75 #ann\"\n",
    "bare": b"|/usr/bin/prog -x\n",
    "bare quotes": b'|"/usr/bin/prog -x"\n',
    "files": b'/var/tmp/box\n/var/tmp/folder/, "/var/tmp/a b"\n',
    "nothing": b"/dev/null\n",
    "nothing else": b"/dev/null, bob\n",
    "twice": b"bob, bob@example.org\nbob\n",
    "phrase": b"Eve Smith <eve@elsewhere.example>\n",
    "note": b"eve@elsewhere.example (Eve)\n",
    "quoted": b'"eve smith"@elsewhere.example\n',
    "dos": b"bob\r\neve@elsewhere.example\r\n",
    "empty": b"",
    "comments": b"# nobody\n",
    "commas": b",bob,,eve@elsewhere.example,\n",
    "wrong": b"ann smith\n",
}
"""Files `.forward` of ann."""
