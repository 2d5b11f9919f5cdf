"""Accept: every media type that a route offers is met however it is spelled, and parameters but q mean nothing."""

import pytest

from handlers.http.accept import acceptable
from tests.test_refusals import CONTRACTS

OFFERS = sorted({contract.media for contract in CONTRACTS.values() if "*/*" not in contract.media})

MET = [
    "{0}",
    "{0}; charset=utf-8",
    "{0};charset=UTF-8",
    '{0}; version=0.0.4; x="a, b"',
    "{0} ; charset=utf-8 ; q=0.5",
    "{upper}; charset=utf-8",
    "image/tiff, {0}; charset=utf-8",
    "{0}; charset=utf-8, */*",
    "*/*; q=0.1, {0}; charset=utf-8; q=0.2",
    "*/*; q=0.1, {main}/*; q=0.1, {0}; charset=utf-8",
]
UNMET = [
    "image/tiff",
    "*; q=.0",
    "*.*",
    "{0}; q=.0, image/*; q=.5",
    "{0}; charset=utf-8; q=0",
    "{0};q=0, image/tiff",
    "image/*; version=1",
]
ANY = ["", " ", "*/*", "*/*; q=0.5", "*/*; version=1", "*", "*;q=.2", "image/gif, image/jpeg, *; q=.2, */*; q=.2"]
"""The last is what Java sends until 18, and whoever is made of its HttpURLConnection."""


@pytest.mark.parametrize("offers", OFFERS, ids=" ".join)
def test_a_media_type_is_met_however_it_is_spelled(offers):
    for offer in offers:
        words = {"upper": offer.upper(), "main": offer.partition("/")[0]}
        for spelling in MET:
            assert acceptable(offers, spelling.format(offer, **words)) == offer, spelling
        for spelling in UNMET:
            assert acceptable(offers, spelling.format(offer, **words)) is None, spelling
    for spelling in ANY:
        assert acceptable(offers, spelling) == offers[0], spelling
    if len(offers) > 1:
        assert acceptable(offers, f"*/*, {offers[0]}; charset=utf-8; q=0") == offers[1]
