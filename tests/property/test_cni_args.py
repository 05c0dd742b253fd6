"""Properties of CNI_ARGS."""

from hypothesis import given
from hypothesis import strategies as st

from cnisandbox.cni.args import parse_args
from cnisandbox.errors import InvalidEnvironment
from tests.property.strategies import ANY_TEXT, outcome

PIECES = st.text(st.characters(exclude_characters=";="), max_size=10)


@given(ANY_TEXT, st.lists(PIECES, max_size=3).map(tuple))
def test_any_text_gives_known_keys_or_the_documented_error(text, known):
    got = outcome(parse_args, text, known, errors=InvalidEnvironment)
    if isinstance(got, InvalidEnvironment):
        assert got.msg.startswith("parse CNI_ARGS: ")
    else:
        assert set(got) <= set(known)


@given(st.dictionaries(PIECES.filter(lambda key: key != "IgnoreUnknown"), PIECES, min_size=1))
def test_what_was_written_is_read(pairs):
    assert parse_args(";".join(f"{key}={value}" for key, value in pairs.items()), tuple(pairs)) == pairs
