"""CNI_ARGS (conventions, section 9), as the reference's LoadArgs reads them."""

import pytest

from cnisandbox.cni.args import parse_args
from cnisandbox.errors import InvalidEnvironment

KUBERNETES = (
    "IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=web-0;K8S_POD_INFRA_CONTAINER_ID=0123abc;"
    "K8S_POD_UID=6a1e0c9e-7a0b-4f57-8d3e-0d3f0a9f1c11"
)
KNOWN = ("MAC", "IP")

ACCEPTED = {
    "unset": ("", {}),
    "one": ("IP=10.0.0.1", {"IP": "10.0.0.1"}),
    "two": ("MAC=02:00:00:00:00:01;IP=fd00::1/64", {"MAC": "02:00:00:00:00:01", "IP": "fd00::1/64"}),
    "empty-value": ("IP=", {"IP": ""}),
    "last-duplicate-wins": ("IP=10.0.0.1;IP=10.0.0.2", {"IP": "10.0.0.2"}),
    "kubernetes": (KUBERNETES, {}),
    "kubernetes-with-known": (f"{KUBERNETES};IP=10.0.0.1", {"IP": "10.0.0.1"}),
    "ignore-unknown-last": ("X=1;IP=10.0.0.1;IgnoreUnknown=TRUE", {"IP": "10.0.0.1"}),
    "ignore-unknown-unneeded": ("IgnoreUnknown=0;IP=10.0.0.1", {"IP": "10.0.0.1"}),
    "other-case-is-unknown": ("mac=x;IgnoreUnknown=true", {}),
    "empty-key-is-unknown": ("=x;IgnoreUnknown=true", {}),
}


@pytest.mark.parametrize(("text", "expected"), ACCEPTED.values(), ids=ACCEPTED)
def test_accepts(text, expected):
    assert parse_args(text, KNOWN) == expected


REFUSED = {
    "no-pair": ("none", "invalid pair 'none'"),
    "trailing-semicolon": ("IP=10.0.0.1;", "invalid pair ''"),
    "two-equals-signs": ("IP=a=b", "invalid pair 'IP=a=b'"),
    "invalid-pair-though-unknown-ones-are-ignored": ("IgnoreUnknown=1;x", "invalid pair 'x'"),
    "unknown-key": ("X=1;IP=10.0.0.1;Y=2", "unknown args ['X=1', 'Y=2']"),
    "unknown-key-not-ignored": ("IgnoreUnknown=false;X=1", "unknown args ['X=1']"),
    "other-case": ("mac=02:00:00:00:00:01", "unknown args"),
    "ignore-unknown-in-other-case": ("ignoreunknown=1", "unknown args"),
    "ignore-unknown-not-boolean": ("IgnoreUnknown=yes", "IgnoreUnknown is 'yes', expected true or false"),
    "ignore-unknown-empty": ("IgnoreUnknown=;X=1", "IgnoreUnknown is ''"),
    "not-utf-8": ("\udcff", "invalid pair '\\udcff'"),
}


@pytest.mark.parametrize(("text", "why"), REFUSED.values(), ids=REFUSED)
def test_refuses(text, why):
    with pytest.raises(InvalidEnvironment) as error:
        parse_args(text, KNOWN)
    assert error.value.code == 4
    assert error.value.msg.startswith(f"parse CNI_ARGS: {why}")
