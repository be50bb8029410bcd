"""Each scenario of FreeRTOS's qualification stands in docs/qualification.md with a test that bears its name."""

from __future__ import annotations

import re
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
PAGE = REPOSITORY / "docs" / "qualification.md"
SCENARIOS = {
    "GreaterVersion",
    "BackToBackDownloads",
    "RollbackIfUnableToConnectAfterUpdate",
    "SameVersion",
    "PreviousVersion",
    "UnsignedImage",
    "UntrustedCertificate",
    "IncorrectSigningAlgorithm",
    "DisconnectAndResume",
    "DisconnectCancelUpdate",
    "PresignedUrlExpired",
    "TwoUpdatesCancelFirst",
    "CancelThenUpdate",
    "ImageCrashed",
    "CorruptImageBeforeSigning",
    "CorruptImageAfterSigning",
    "CorruptSignature",
    "SingleByteImage",
    "MissingFilename",
    "IncorrectPlatform",
    "BackToBackSwitchProtocol",
    "DefaultDataProtocol",
    "MinBlockConfig",
    "MaxBlockConfig",
    "HungSelfTest",
    "AnyFile",
}


def test_each_scenario_has_its_row_and_its_test() -> None:
    rows = dict(re.findall(r"^\| (\w+) \|.*\| `(tests/qualification/\w+\.py::\w+)` \|$", PAGE.read_text(), re.MULTILINE))
    assert set(rows) == SCENARIOS
    for scenario, named in rows.items():
        file, test = named.split("::")
        assert test == "test_" + re.sub(r"(?<!^)(?=[A-Z])", "_", scenario).lower()
        source = (REPOSITORY / file).read_text()
        assert re.search(rf'@scenario\("{scenario}"[^\n]*\)\ndef {test}\(', source), f"{test} doesn't bear {scenario}"
