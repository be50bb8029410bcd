"""Templates: what they say, what is refused, and that nothing in one costs much."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overair.basics.errors import InvalidRequest
from overair.server.provisioning.template_functions import TEXT_LENGTH_MAX
from overair.server.provisioning.template_language import CERTIFICATE_ID, Template
from overair.server.provisioning.template_plans import Override

OWN = {"Type": "AWS::IoT::Certificate", "Properties": {"CertificateId": {"Ref": CERTIFICATE_ID}}}


def template(name: Any, *, parameters: dict[str, Any] | None = None, **more: Any) -> Template:
    """A template whose thing is named by an expression."""
    thing = {"Type": "AWS::IoT::Thing", "Properties": {"ThingName": name}}
    declared = {"A": {"Type": "String"}, "B": {"Type": "String", "Default": "b"}} if parameters is None else parameters
    return Template.read(json.dumps({"Parameters": declared, "Resources": {"t": thing, "c": OWN}, **more}))


def named(name: Any, **more: Any) -> str:
    plan = template(name, **more).resolve({"A": "x,y,z", CERTIFICATE_ID: "0" * 64})
    assert plan.thing is not None
    return plan.thing.name


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("plain", "plain"),
        ({"Ref": "B"}, "b"),
        ({"Fn::Join": ["-", ["a", {"Ref": "B"}]]}, "a-b"),
        ({"Fn::Select": ["1", {"Fn::Split": [",", {"Ref": "A"}]}]}, "y"),
        ({"Fn::Select": [2, ["p", "q", "r"]]}, "r"),
        ({"Fn::FindInMap": ["M", {"Ref": "B"}, "k"]}, "found"),
        ({"Fn::Sub": "dev-${B}"}, "dev-b"),
        ({"Fn::Sub": ["dev-${C}_${B}", {"C": {"Ref": "B"}}]}, "dev-b_b"),
    ],
)
def test_each_function_has_its_value(expression: Any, value: str) -> None:
    assert named(expression, Mappings={"M": {"b": {"k": "found"}}}) == value


def test_a_policy_variable_stands_in_a_document_as_it_is() -> None:
    document = '{"Resource": "${iot:Connection.Thing.ThingName}"}'
    sub = {"Fn::Sub": '{"Resource": "${!iot:Connection.Thing.ThingName}/${B}"}'}
    policies = {
        name: {"Type": "AWS::IoT::Policy", "Properties": {"PolicyDocument": given}}
        for name, given in (("plain", document), ("sub", sub), ("object", {"Resource": {"Ref": "B"}}))
    }
    body = {"Parameters": {"B": {"Type": "String", "Default": "b"}}, "Resources": {"c": OWN, **policies}}
    plan = Template.read(json.dumps(body)).resolve({CERTIFICATE_ID: "0" * 64})
    assert [policy.document for policy in plan.policies] == [
        document,
        '{"Resource": "${iot:Connection.Thing.ThingName}/b"}',
        '{"Resource":"b"}',
    ]


@pytest.mark.parametrize(
    ("body", "word"),
    [
        ("{", "can't be read"),
        ({}, "no Resources"),
        ({"Resources": {}, "Outputs": {}}, "Outputs"),
        ({"Parameters": {"A": {"Type": "Number"}}, "Resources": {"c": OWN}}, "Parameters.A"),
        ({"Resources": {"t": {"Type": "AWS::S3::Bucket"}}}, "AWS::S3::Bucket"),
        ({"Resources": {"t": {"Type": "AWS::IoT::Thing", "Properties": {}}}}, "ThingName"),
        (
            {"Resources": {"t": {"Type": "AWS::IoT::Thing", "Properties": {"ThingName": "a", "BillingGroup": "b"}}}},
            "billing groups",
        ),
        ({"Resources": {"t": {"Type": "AWS::IoT::Thing", "Properties": {"ThingName": {"Ref": "No"}}}}}, "no parameter"),
        ({"Resources": {"t": {"Type": "AWS::IoT::Thing", "Properties": {"ThingName": {"Fn::If": []}}}}}, "Fn::If"),
        ({"Resources": {"t": {"Type": "AWS::IoT::Thing", "Properties": {"ThingName": {"Fn::Join": ["-"]}}}}}, "Fn::Join"),
        ({"Resources": {"t": {"Type": "AWS::IoT::Thing", "Properties": {"ThingName": {"Fn::Sub": "${No}"}}}}}, "Fn::Sub"),
        ({"Resources": {"c": OWN, "d": OWN}}, "at most 1"),
        ({"Resources": {"c": {**OWN, "OverrideSettings": {"Status": "MERGE"}}}}, "OverrideSettings.Status"),
        ({"Resources": {"p": {"Type": "AWS::IoT::Policy", "Properties": {}}}}, "PolicyName"),
    ],
)
def test_a_template_that_is_wrong_is_refused_with_the_place(body: Any, word: str) -> None:
    with pytest.raises(InvalidRequest, match=word) as refused:
        Template.read(body if isinstance(body, str) else json.dumps(body))
    assert refused.value.subject == "template"


@pytest.mark.parametrize(
    ("expression", "word"),
    [
        ({"Fn::Select": ["3", {"Fn::Split": [",", {"Ref": "A"}]}]}, "Fn::Select"),
        ({"Fn::FindInMap": ["M", "no", "k"]}, "finds nothing"),
        ({"Fn::Split": ["", "a"]}, "empty"),
        ({"Fn::Split": [",", "a"]}, "come to a text"),
        ({"Ref": "AWS::IoT::Certificate::CommonName"}, "CommonName"),
        ("no/thing", "a thing's name"),
    ],
)
def test_a_value_that_cannot_be_worked_out_is_refused(expression: Any, word: str) -> None:
    with pytest.raises(InvalidRequest, match=word) as refused:
        named(expression, Mappings={"M": {}})
    assert refused.value.subject == "parameters"


def test_a_missing_parameter_is_named() -> None:
    with pytest.raises(InvalidRequest, match="Missing required parameters: A"):
        template({"Ref": "A"}).resolve({})


def test_overrides_are_kept_and_only_the_own_certificate_counts_as_one() -> None:
    thing = {"Type": "AWS::IoT::Thing", "Properties": {"ThingName": "t"}, "OverrideSettings": {"ThingGroups": "MERGE"}}
    read = Template.read(json.dumps({"Resources": {"c": OWN, "t": thing}}))
    plan = read.resolve({CERTIFICATE_ID: "a" * 64})
    assert plan.thing is not None
    assert plan.thing.overrides == {"ThingGroups": Override.MERGE}
    assert read.names_only_its_own_certificate
    foreign = {"Type": "AWS::IoT::Certificate", "Properties": {"CertificateId": "a" * 64}}
    assert not Template.read(json.dumps({"Resources": {"c": foreign}})).names_only_its_own_certificate


def test_values_that_multiply_are_stopped() -> None:
    grown: Any = "${A}" * 50
    expression: Any = {"Fn::Sub": grown}
    for _ in range(2):
        expression = {"Fn::Sub": [grown.replace("A", "C"), {"C": expression}]}
    with pytest.raises(InvalidRequest, match=str(TEXT_LENGTH_MAX)):
        template(expression).resolve({"A": "x" * 100, CERTIFICATE_ID: "0" * 64})


@given(
    st.recursive(
        st.text(max_size=5) | st.none() | st.integers() | st.sampled_from([{"Ref": "A"}, {"Ref": "B"}]),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["Fn::Join", "Fn::Select", "Fn::Split", "Fn::Sub", "Fn::FindInMap", "Ref", "k"]),
                inner,
                max_size=2,
            )
        ),
        max_leaves=8,
    )
)
def test_any_expression_has_a_value_or_is_refused(expression: Any) -> None:
    subjects: list[str] = []
    try:
        read = template(expression)
        subjects.append("parameters")
        read.resolve({"A": "a", CERTIFICATE_ID: "0" * 64})
    except InvalidRequest as refused:
        subjects.append(refused.subject)
    assert subjects in (["template"], ["parameters"], ["parameters", "parameters"])
