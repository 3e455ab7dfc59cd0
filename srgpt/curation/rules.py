"""The rules that a dataset must satisfy, as data: each judges one column of one frame (``store.py``).

Most columns are *problems*, empty where all is well, else a sentence, so that a report reads without knowing
the rule. A *warning* is shown and does not fail the dataset.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import great_expectations.expectations as gxe

from srgpt.params import ValidateParams

Severity = Literal["critical", "warning"]

TRUTHS = ("cuboids", "perceived", "imported")
"""Where the facts of conversations come from."""


@dataclass(frozen=True)
class Rule:
    """One rule: its name, the frame and column it judges, what it demands in words, the expectation, its weight."""

    name: str
    frame: str
    column: str
    demands: str
    expectation: Callable[..., Any]
    arguments: Mapping[str, Any] = field(default_factory=dict)
    severity: Severity = "critical"

    def build(self) -> Any:
        """Return the Great Expectations object, which carries the rule's name, words and severity."""
        return self.expectation(
            column=self.column,
            **self.arguments,
            description=f"{self.name}: {self.demands}",
            meta={"rule": self.name},
            severity=self.severity,
        )


def rules(
    params: ValidateParams, dataset: str, *, judge_quality: bool, judge_balance: bool = True
) -> tuple[Rule, ...]:
    """Return every rule; the thresholds of perception's quality only where ``judge_quality``.

    That answers are lopsided is a warning unless ``judge_balance``: of imported questions, which are what others
    made of them, and of those asked as the reference asks, whose bias is meant.
    """
    return (
        *_scene_rules(dataset),
        *_graph_rules(dataset),
        *_conversation_rules(dataset),
        *_turn_rules(),
        *_dataset_rules(params, "critical" if judge_balance else "warning"),
        *(_quality_rules(params) if judge_quality else ()),
    )


def _scene_rules(dataset: str) -> tuple[Rule, ...]:
    return (
        _unique(
            "scene_unique", "scenes", "key", "every scene id is there once per table (per shard of an import)"
        ),
        _equal("scene_dataset", "scenes", "dataset", [dataset], "every scene belongs to the dataset"),
        _clean("image_readable", "scenes", "image_problem", "the picture opens and has the declared size"),
        _clean("depth_decodes", "scenes", "depth_problem", "depth is a uint16 PNG of the picture's size"),
        _between("depth_not_negative", "scenes", "depth_min", 0, None, "no depth is negative"),
        _between("depth_finite", "scenes", "depth_not_finite", 0, 0, "every depth is a finite number"),
        _between("depth_within_range", "scenes", "depth_max", 0, 65.535, "no depth is beyond 65.535 m"),
        _between("depth_has_readings", "scenes", "depth_valid_share", 1e-9, 1, "some pixels have a depth"),
        _clean("intrinsics_positive", "scenes", "intrinsics_problem", "focal lengths are positive"),
        _clean("gravity_unit", "scenes", "gravity_problem", "gravity is a unit vector"),
        _clean("provenance_named", "scenes", "provenance_problem", "what is known has a source"),
        _unique("region_unique", "regions", "key", "region ids are unique in a scene"),
        _present("region_category", "regions", "category", "every region has a category"),
        *_region_rules("region", "regions"),
        _clean("region_cuboid", "regions", "cuboid_problem", "cuboids are finite with positive sizes"),
        _share(
            "region_visibility", "regions", "visibility", "visibility is a share, or -1 for unknown", low=-1
        ),
        _share(
            "region_truncation", "regions", "truncation", "truncation is a share, or -1 for unknown", low=-1
        ),
        _share("region_score", "regions", "score", "scores are from 0 to 1"),
    )


def _region_rules(prefix: str, frame: str) -> tuple[Rule, ...]:
    return (
        _clean(f"{prefix}_box_inside", frame, "bbox_problem", "2D boxes have an area and lie in the picture"),
        _clean(f"{prefix}_mask_decodes", frame, "mask_problem", "masks are whole RLEs of the picture's size"),
        # -1: the mask did not decode, which is another rule's matter
        _not_in(f"{prefix}_mask_not_empty", frame, "mask_pixels", [0], "masks have pixels"),
    )


def _graph_rules(dataset: str) -> tuple[Rule, ...]:
    return (
        _unique("graph_unique", "graphs", "scene_id", "every scene has one graph"),
        _equal("graph_dataset", "graphs", "dataset", [dataset], "every graph belongs to the dataset"),
        _clean("graph_scene_known", "graphs", "scene_problem", "every graph is of a perceived scene"),
        _clean("graph_rotation", "graphs", "rotation_problem", "the rotation turns gravity to +y"),
        _unique("node_unique", "nodes", "key", "region ids are unique in a graph"),
        _present("node_category", "nodes", "category", "every object has a category"),
        _clean("node_region_known", "nodes", "region_problem", "every object is a region of its scene"),
        *_region_rules("node", "nodes"),
        _clean("node_perceived_box", "nodes", "perceived_problem", "perceived boxes: finite, positive sizes"),
        _clean("node_oriented_box", "nodes", "oriented_problem", "oriented boxes: finite, positive sizes"),
        _clean("node_true_box", "nodes", "truth_problem", "true boxes: finite, positive sizes"),
        _clean("node_sigma", "nodes", "sigma_problem", "standard deviations are finite and not negative"),
        _clean("node_drop_reason", "nodes", "dropped_problem", "a dropped object has no perceived box"),
        _between("node_mask_points", "nodes", "mask_points", 0, None, "point counts are not negative"),
        _between("node_kept_points", "nodes", "kept_points", 0, None, "point counts are not negative"),
        _share("node_depth_coverage", "nodes", "depth_coverage", "depth coverage is from 0 to 1"),
        _share("node_cluster_share", "nodes", "cluster_share", "the cluster's share is from 0 to 1"),
    )


def _conversation_rules(dataset: str) -> tuple[Rule, ...]:
    frame, asked = "conversations", "asked_regions"
    return (
        _unique("conversation_unique", frame, "conversation_id", "every conversation id is there once"),
        _equal("conversation_dataset", frame, "dataset", [dataset], "every row belongs to the dataset"),
        _equal("conversation_truth", frame, "truth", list(TRUTHS), "the facts' origin is known"),
        _clean("conversation_scene_known", frame, "scene_problem", "every conversation is about a graph"),
        _between("conversation_has_turns", frame, "turns", 1, None, "every conversation asks something"),
        _unique("asked_region_unique", asked, "key", "region ids are unique in a row"),
        _clean("asked_region_known", asked, "region_problem", "asked regions are objects of the graph"),
        *_region_rules("asked_region", asked),
    )


def _turn_rules() -> tuple[Rule, ...]:
    return (
        _present("question_present", "turns", "question", "every turn has a question"),
        _present("answer_present", "turns", "answer", "every turn has an answer"),
        _present("category_present", "turns", "category", "every turn has a category"),
        _clean(
            "category_known", "turns", "category_problem", "categories are known, or the answer is free text"
        ),
        _clean("unit_fits", "turns", "unit_problem", "the unit is the category's"),
        _clean("value_in_range", "turns", "value_problem", "values are possible in their unit"),
        _clean("sigma_in_range", "turns", "sigma_problem", "standard deviations are finite and not negative"),
        _clean("region_known", "turns", "regions_problem", "turns ask about regions of their conversation"),
        _clean("region_count", "turns", "region_count_problem", "turns have as many regions as they need"),
        _clean("region_mentions", "turns", "mentions_problem", "question and answer name the turn's regions"),
        _clean("answer_agrees", "turns", "answer_problem", "the answer's text says the value"),
        _clean("value_is_fact", "turns", "fact_problem", "the value is what the scene graph says"),
    )


def _dataset_rules(params: ValidateParams, balance: Severity) -> tuple[Rule, ...]:
    low, high = params.yes_share
    share = params.max_rejected_share
    return (
        _between("enough_rows", "tables", "rows", params.min_rows, None, f"at least {params.min_rows} rows"),
        _between("few_rejected", "tables", "rejected_share", 0, share, f"at most {share:.0%} were set aside"),
        _clean("lineage_unbroken", "tables", "lineage_problem", "tables were made from the ones before"),
        Rule(
            "answers_balanced",
            "balance",
            "judged_yes_share",
            f"{low:.0%} to {high:.0%} positive answers per category (of {params.min_balance_rows} or more)",
            gxe.ExpectColumnValuesToBeBetween,
            {"min_value": low, "max_value": high},
            severity=balance,
        ),
        Rule(
            "not_answerable_blind",
            "blind",
            "judged_lead",
            f"question text answers at most {params.max_blind_lead:.0%} more than chance, beyond doubt",
            gxe.ExpectColumnValuesToBeBetween,
            {"min_value": None, "max_value": params.max_blind_lead},
            severity="warning",
        ),
    )


def _quality_rules(params: ValidateParams) -> tuple[Rule, ...]:
    low, high = params.min_label_accuracy, params.max_abs_rel
    return (
        _between(
            "labels_accurate", "quality", "judged_accuracy", low, 1, f"perceived labels: {low:.0%} right"
        ),
        _between(
            "sizes_accurate", "quality", "judged_abs_rel", 0, high, f"median relative error up to {high:g}"
        ),
    )


def _clean(name: str, frame: str, column: str, demands: str) -> Rule:
    return Rule(name, frame, column, demands, gxe.ExpectColumnValuesToBeNull)


def _present(name: str, frame: str, column: str, demands: str) -> Rule:
    return Rule(name, frame, column, demands, gxe.ExpectColumnValuesToNotBeNull)


def _between(name: str, frame: str, column: str, low: float | None, high: float | None, demands: str) -> Rule:
    bounds = {"min_value": low, "max_value": high}
    return Rule(name, frame, column, demands, gxe.ExpectColumnValuesToBeBetween, bounds)


def _share(name: str, frame: str, column: str, demands: str, low: float = 0) -> Rule:
    return _between(name, frame, column, low, 1, demands)


def _equal(name: str, frame: str, column: str, values: list[Any], demands: str) -> Rule:
    return Rule(name, frame, column, demands, gxe.ExpectColumnValuesToBeInSet, {"value_set": values})


def _not_in(name: str, frame: str, column: str, values: list[Any], demands: str) -> Rule:
    return Rule(name, frame, column, demands, gxe.ExpectColumnValuesToNotBeInSet, {"value_set": values})


def _unique(name: str, frame: str, column: str, demands: str) -> Rule:
    return Rule(name, frame, column, demands, gxe.ExpectColumnValuesToBeUnique)
