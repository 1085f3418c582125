"""An administrator's own additions, merged into a file of ours."""

from __future__ import annotations

import pytest

from mailops.remote.changes import additions
from mailops.remote.shared.errors import AgentError

MAIN = b"""\
# The size of a message
message_size_limit = 52428800
smtpd_recipient_restrictions =
  reject_non_fqdn_recipient,
# a comment does not end it

  reject_unlisted_recipient
milter_default_action = tempfail
"""
MASTER = b"""\
# service type
smtp      inet  n       -       y       -       -       smtpd
  -o max_use=1
# why not
  -o smtpd_sasl_auth_enable=no
smtp      unix  -       -       y       -       -       smtp
postlog   unix-dgram n  -       n       -       1       postlogd
"""
SOURCE = "/etc/mailops/local/x"
FROM = b"\n# --- From /etc/mailops/local/x\n"


def merged(base: bytes, text: bytes, style: str = "main.cf") -> bytes:
    return additions.merged(base, text, style, SOURCE)


@pytest.mark.parametrize("style", ["append", "main.cf", "master.cf"])
@pytest.mark.parametrize(
    "nothing", [b"", b"\n", b"# later: message_size_limit = 1\n\n", b"\xef\xbb\xbf \t\r\n#", b"  # x"]
)
def test_a_text_that_sets_nothing_leaves_the_base_as_it_is(style: str, nothing: bytes) -> None:
    assert merged(MAIN, nothing, style) == MAIN


def test_append_puts_the_text_last_and_says_where_it_comes_from() -> None:
    assert merged(b"a = 1\n", b"a = 2", "append") == b"a = 1\n" + FROM + b"a = 2\n"


@pytest.mark.parametrize("line", [b"message_size_limit = 1", b"message_size_limit=1", b"message_size_limit  =1\n"])
def test_a_parameter_that_is_set_anew_leaves_the_base(line: bytes) -> None:
    without = MAIN.replace(b"message_size_limit = 52428800\n", b"")
    assert merged(MAIN, line) == without + FROM + line.removesuffix(b"\n") + b"\n"


def test_a_parameter_leaves_with_its_continuation_lines_and_comments_stay() -> None:
    result = merged(MAIN, b"smtpd_recipient_restrictions =\n   one,\n # between\n   two\n")
    assert b"reject_" not in result
    assert b"# a comment does not end it\n\nmilter_default_action = tempfail\n" in result
    assert result.endswith(FROM + b"smtpd_recipient_restrictions =\n   one,\n # between\n   two\n")


def test_a_new_parameter_takes_nothing_out() -> None:
    assert merged(MAIN, b"message_size = 1\n") == MAIN + FROM + b"message_size = 1\n"


def test_a_value_with_an_equals_sign_and_a_name_in_a_value_mislead_nobody() -> None:
    text = b"smtpd_milters = inet:a { message_size_limit = 1 }\n"
    assert merged(MAIN, text) == MAIN + FROM + text


def test_white_space_before_the_first_line_does_not_continue_the_base() -> None:
    """An indented text means what it says; Postfix would take its first line for the end of the base's last value."""
    result = merged(MAIN, b"# mine\n\n   message_size_limit = 1\n     2\n")
    assert result.endswith(b"milter_default_action = tempfail\n" + FROM + b"# mine\n\nmessage_size_limit = 1\n     2\n")
    assert b"52428800" not in result


def test_what_the_text_says_twice_is_left_to_postconf() -> None:
    assert merged(MAIN, b"a = 1\na = 2\n").endswith(FROM + b"a = 1\na = 2\n")


def test_a_line_that_is_no_parameter_is_left_to_postconf() -> None:
    assert merged(MAIN, b"just words\n") == MAIN + FROM + b"just words\n"


@pytest.mark.parametrize("style", ["append", "main.cf"])
def test_lines_as_windows_ends_them(style: str) -> None:
    result = merged(MAIN, b"\xef\xbb\xbfmessage_size_limit = 1\r\n\r\nlast = 2\r\n", style)
    assert result.endswith(FROM + b"message_size_limit = 1\n\nlast = 2\n")
    assert (b"52428800" in result) == (style == "append")


def test_bytes_that_are_no_text_are_kept() -> None:
    assert merged(MAIN, b"smtpd_banner = caf\xe9 \xff\x00\rx\n").endswith(b"smtpd_banner = caf\xe9 \xff\x00\rx\n")


def test_a_service_leaves_with_its_options_and_its_namesake_of_another_type_stays() -> None:
    text = b"smtp inet n - n - 20 smtpd\n  -o max_use=100\n"
    result = merged(MASTER, text, "master.cf")
    assert result.endswith(b"postlogd\n" + FROM + text)
    assert b"max_use=1\n" not in result
    assert b"smtpd_sasl_auth_enable" not in result
    assert b"\n# why not\nsmtp      unix  -       -       y       -       -       smtp\n" in result


def test_a_new_service_takes_nothing_out() -> None:
    for text in (
        b"2525 inet n - y - - smtpd\n",
        b"127.0.0.1:smtp inet n - y - - smtpd\n",
        b"postlog unix - - n - 1 x\n",
    ):
        assert merged(MASTER, text, "master.cf") == MASTER + FROM + text


def test_options_without_a_service_are_nobodys() -> None:
    """They would be postlog's otherwise; as a line of their own, postconf -M refuses them."""
    assert merged(MASTER, b"  -o x=y\n", "master.cf") == MASTER + FROM + b"-o x=y\n"


def test_a_line_of_one_word_is_left_to_postconf() -> None:
    assert merged(MASTER, b"smtp\n", "master.cf") == MASTER + FROM + b"smtp\n"


def test_the_merged_file_is_open_to_whom_both_are_open() -> None:
    assert additions.mode(0o644, 0o644, "append", SOURCE) == 0o644
    assert additions.mode(0o640, 0o644, "append", SOURCE) == 0o640
    assert additions.mode(0o644, 0o600, "append", SOURCE) == 0o640
    assert additions.mode(0o644, 0o640, "master.cf", SOURCE) == 0o640


def test_a_private_main_cf_is_refused() -> None:
    """sendmail(1) reads main.cf as whoever calls it."""
    assert additions.mode(0o644, 0o644, "main.cf", SOURCE) == 0o644
    with pytest.raises(AgentError, match="may not be read by everybody") as caught:
        additions.mode(0o644, 0o640, "main.cf", SOURCE)
    assert f"chmod a+r {SOURCE}" in caught.value.hint
