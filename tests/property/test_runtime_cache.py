"""What is stored in the result cache comes back, whatever the names; any bytes that lie there do no harm."""

import os
import tempfile

from hypothesis import given
from hypothesis import strategies as st

from cnisandbox.errors import InvalidConfig
from cnisandbox.runtime.cache import CachedAttachment, ResultCache

NAMES = st.from_regex(r"[a-zA-Z0-9][a-zA-Z0-9_.\-]{0,20}", fullmatch=True)
IFNAMES = st.text(st.characters(codec="utf-8", exclude_characters="/:%\0"), min_size=1, max_size=5).filter(
    lambda name: len(name.encode()) <= 15 and not any(character.isspace() for character in name)
)
TEXT = st.text(st.characters(codec="utf-8"), max_size=20)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)
ATTACHMENTS = st.builds(
    CachedAttachment,
    network=NAMES,
    container_id=NAMES,
    ifname=IFNAMES,
    result=st.dictionaries(TEXT, JSON, max_size=4),
    netns=TEXT,
    args=st.lists(st.tuples(TEXT, TEXT), max_size=3).map(tuple),
    capability_args=st.dictionaries(TEXT, JSON, max_size=3),
    config=st.binary(max_size=100),
)


@given(ATTACHMENTS)
def test_what_is_stored_comes_back(attachment: CachedAttachment) -> None:
    with tempfile.TemporaryDirectory() as directory:
        cache = ResultCache(directory)
        cache.store(attachment)
        assert cache.load(*attachment.key) == attachment
        assert cache.attachments(attachment.network) == [attachment]
        cache.remove(*attachment.key)
        assert os.listdir(cache.results) == []


@given(st.lists(ATTACHMENTS, max_size=6, unique_by=lambda attachment: attachment.key))
def test_no_attachment_is_taken_for_another(attachments: list[CachedAttachment]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        cache = ResultCache(directory)
        stored = []
        for attachment in attachments:
            try:
                cache.store(attachment)
            except InvalidConfig:
                continue  # one whose names join to the same file name was there first
            stored.append(attachment)
        for attachment in attachments:
            assert cache.load(*attachment.key) == (attachment if attachment in stored else None)
        assert len(cache.attachments()) == len(stored)


@given(st.binary(max_size=100))
def test_any_bytes_are_a_result_or_an_error(content: bytes) -> None:
    with tempfile.TemporaryDirectory() as directory:
        cache = ResultCache(directory)
        os.makedirs(cache.results)
        with open(cache.path("lab", "c1", "eth0"), "wb") as file:
            file.write(content)
        try:
            loaded = cache.load("lab", "c1", "eth0")
        except InvalidConfig:
            loaded = None
        assert loaded is None or isinstance(loaded.result, dict)
        assert cache.attachments() == []
        cache.remove("lab", "c1", "eth0")
        assert os.listdir(cache.results) == []
