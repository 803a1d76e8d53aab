"""The doctor's rules, which judge the numbers of a prepared data set."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from mmsa.data.prepare import listed, listed_names
from mmsa.data.store import FOLDS
from mmsa.doctor.finding import SEVERITIES, Finding, counted, named
from mmsa.doctor.known_files import PUBLISHER
from mmsa.errors import printable

SUSPICIOUS = 0.95
"""Correlation of one column with the label above which the column is taken for the label itself."""
_MOSTLY = 0.8
_RARE = 0.2


def judge(numbers: Mapping[str, Any]) -> list[Finding]:
    """All findings in a data set, errors first.

    Args:
        numbers: of `mmsa.doctor.examination.Diagnosis`.
    """
    found = [*_of_rows(numbers), *_of_labels(numbers), *_of_features(numbers), *_of_source(numbers)]
    # Names in it come from files, and go to a terminal.
    shown = (replace(finding, text=printable(finding.text), advice=printable(finding.advice)) for finding in found)
    return sorted(shown, key=lambda finding: SEVERITIES.index(finding.severity))


def _of_rows(numbers: Mapping[str, Any]) -> Iterator[Finding]:
    folds = numbers["folds"]
    if numbers["drawn_vectors"]:
        yield Finding(
            "warning",
            "drawn_vectors",
            f"the source has no word vectors: each of its {numbers['drawn_vectors']} different words has a random one.",
            "They distinguish words and have no meaning: prepare with --glove FILE.",
        )
    if empty := [fold for fold in FOLDS if not folds[fold]["utterances"]]:
        yield Finding(
            "error",
            "empty_fold",
            f"no utterance is in the fold {' and '.join(empty)}.",
            "A run needs all three: prepare a source with train, valid and test, or type dataset.num_folds=5 "
            "dataset.held_out=0 for folds of your own.",
        )
    if other := [f for f in FOLDS if folds[f]["published"] not in (None, folds[f]["utterances"])]:
        dropped = sum(map(len, numbers["dropped"].values()))
        reason = f" ({counted(dropped, 'utterance')} dropped on reading)" if dropped else ""
        counts = ", ".join(f"{f} {folds[f]['utterances']} instead of {folds[f]['published']}" for f in other)
        yield Finding(
            "warning",
            "fold_sizes",
            f"folds differ from the published ones: {counts}{reason}.",
            "Compare scores only with those on the same utterances.",
        )
    if leaking := numbers["leaking_videos"]:
        yield Finding(
            "error",
            "video_leakage",
            f"{counted(len(leaking), 'video')} in more than one fold: {named(leaking)}.",
            "Put every video into one fold: speaker and room reveal the label.",
        )
    if repeated := numbers["duplicate_ids"]:
        yield Finding(
            "error",
            "duplicate_ids",
            f"{counted(len(repeated), 'id')} more than once: {named(repeated)}.",
            "Give every utterance an id of its own in the source.",
        )
    yield from _of_contents(numbers["duplicates"])
    for key, what in (("dropped", "utterances dropped on reading"), ("skipped_videos", "videos skipped")):
        if numbers[key]:
            yield Finding("note", key, f"{what}: {listed_names(numbers[key])}.")


def _of_contents(found: Mapping[str, Any]) -> Iterator[Finding]:
    whole = found["all"]
    by_modality = {name: groups for name, groups in found.items() if name != "all"}
    copied = {"all features": whole["across_folds"]}
    copied |= {name: groups["telling"] for name, groups in by_modality.items()}
    for name, groups in copied.items():
        if groups["groups"] and not (name != "all features" and groups["groups"] <= whole["across_folds"]["groups"]):
            yield Finding(
                "error",
                "content_across_folds",
                f"{name} of {counted(groups['groups'], 'group')} of utterances are equal across folds: "
                f"{named(groups['examples'][0])}.",
                "Remove the copies: the test fold would hold training data.",
            )
    if whole["within_a_fold"]["groups"]:
        groups = whole["within_a_fold"]
        yield Finding(
            "warning",
            "content_within_fold",
            f"all features of {counted(groups['groups'], 'group')} of utterances are equal within a fold: "
            f"{named(groups['examples'][0])}.",
            "Check whether the source lists them twice; they count twice in loss and scores.",
        )
    for modality, parts in by_modality.items():
        groups = {side: parts[side]["groups"] - whole[side]["groups"] for side in ("within_a_fold", "across_folds")}
        if max(groups.values()) > 0:
            reason = ", as the same words are" if modality == "text" else ""
            within, across = (parts[side]["groups"] for side in ("within_a_fold", "across_folds"))
            yield Finding(
                "note",
                "equal_modality",
                f"{modality} alone is equal in {counted(within, 'group')} of utterances within a fold, "
                f"{across} across folds{reason}.",
            )


def _of_labels(numbers: Mapping[str, Any]) -> Iterator[Finding]:
    for name, measured in numbers["targets"].items():
        if wrong := {fold: part["not_finite"] for fold, part in measured["folds"].items() if part["not_finite"]}:
            yield Finding(
                "error",
                "labels_not_finite",
                f"labels of {name} that are not finite: {listed(wrong)}.",
                "Remove these utterances from the source, or correct their labels.",
            )
    measured = numbers["targets"].get(numbers["primary"])
    if measured is None:
        return
    if beyond := {fold: part["beyond_nominal"] for fold, part in measured["folds"].items() if part["beyond_nominal"]}:
        low, high = (f"{bound:g}" if bound is not None else "any" for bound in measured["nominal_range"])
        yield Finding(
            "warning",
            "labels_beyond_range",
            f"labels beyond [{low}, {high}]: {listed(beyond)}, the furthest {measured['furthest']:g}: "
            f"{named(measured['beyond_ids'], sum(beyond.values()))}.",
            "They are kept. Check whether the source intends them.",
        )
    train = measured["folds"]["train"]
    if train["min"] is not None and train["min"] == train["max"]:
        yield Finding(
            "warning",
            "constant_labels",
            f"every label of the train fold is {train['min']:g}.",
            "Check whether the right label column was read; nothing can be learnt from this one.",
        )
    elif measured["kind"] == "binary":
        yield from _of_classes(measured["folds"])


def _of_classes(folds: Mapping[str, Any]) -> Iterator[Finding]:
    signs = {fold: part["signs"] for fold, part in folds.items() if any(part["signs"].values())}
    shares = {fold: of_fold["positive"] / sum(of_fold.values()) for fold, of_fold in signs.items()}
    if uneven := {fold: share for fold, share in shares.items() if min(share, 1 - share) < _RARE}:
        counts = ", ".join(f"{fold} {share:.1%}" for fold, share in uneven.items())
        yield Finding(
            "warning",
            "class_balance",
            f"the classes are uneven; the share of the positive one is {counts}.",
            "Read the F1 scores and the majority baseline beside any accuracy.",
        )


def _of_features(numbers: Mapping[str, Any]) -> Iterator[Finding]:
    for modality, measured in numbers["modalities"].items():
        found = [*_of_presence(modality, numbers), *_of_values(modality, measured), *_of_columns(modality, measured)]
        yield from (replace(finding, modality=modality) for finding in found)


def _of_presence(modality: str, numbers: Mapping[str, Any]) -> Iterator[Finding]:
    filled = numbers["modalities"][modality]["filled"]
    without = [fold for fold in FOLDS if numbers["folds"][fold]["utterances"] and not filled[fold]]
    if FOLDS[0] in without:
        others = [name for name, measured in numbers["modalities"].items() if measured["filled"][FOLDS[0]]]
        yield Finding(
            "error",
            "never_trained",
            f"{modality} is in 0 train utterances, or is zeros there ({listed(filled)}): elsewhere untrained "
            "weights would read it.",
            f"Type dataset.modalities=[{','.join(others)}]" if others else "Prepare the data from another source.",
        )
    elif without:
        yield Finding(
            "warning",
            "never_evaluated",
            f"{modality} is in no utterance of {' and '.join(without)}, or nothing but zeros there ({listed(filled)}): "
            "scores do not cover it.",
            "Check whether its file holds all folds; only the train fold teaches the model that it may be missing.",
        )


def _of_values(modality: str, measured: Mapping[str, Any]) -> Iterator[Finding]:
    if measured["not_finite_in_store"]:
        yield Finding(
            "error",
            "features_not_finite",
            f"{modality} has {counted(measured['not_finite_in_store'], 'value')} that are not finite in the store.",
            "Prepare the data again: reading sets such values to 0.",
        )
    if measured["not_finite_in_source"]:
        yield Finding(
            "warning",
            "non_finite",
            f"{modality} had {counted(measured['not_finite_in_source'], 'value')} that are not finite, set to 0.",
            "Usual in published files; a large number is a fault of the extraction.",
        )
    if zero := {fold: count for fold, count in measured["zero_utterances"].items() if count}:
        yield Finding(
            "warning",
            "zero_utterances",
            f"{modality} is nothing but zeros in {counted(sum(zero.values()), 'utterance')} ({listed(zero)}): "
            f"{named(measured['zero_ids'], sum(zero.values()))}.",
            "Check whether extraction failed there; the model does not know that the modality is missing.",
        )
    steps = measured["steps"]
    if steps["none"]:
        yield Finding("note", "absent", f"{modality} is absent from {counted(steps['none'], 'utterance')}.")
    if steps["one"]:
        yield Finding("note", "one_step", f"{modality} has one step only in {counted(steps['one'], 'utterance')}.")


def _of_columns(modality: str, measured: Mapping[str, Any]) -> Iterator[Finding]:
    if not measured["filled"][FOLDS[0]]:
        return  # which says it all
    alone = measured["constant_in_train_only"]
    for key, what in (("constant_columns", "constant"), ("zero_columns", "all zero")):
        if everywhere := [column for column in measured[key] if column not in set(alone)]:
            yield Finding(
                "warning",
                key,
                f"{modality} has {len(everywhere)} of {counted(measured['width'], 'column')} {what} on the train "
                f"fold: {named(everywhere)}.",
                "They carry no information; check whether the columns are the ones you expect.",
            )
    if alone:
        yield Finding(
            "warning",
            "constant_in_train_only",
            f"{modality} has {counted(len(alone), 'column')} that never change on the train fold and do elsewhere: "
            f"{named(alone)}.",
            "Type dataset.normalize=train, which makes them 0; with utterance and none, untrained weights read them.",
        )
    best = measured["most_correlated"]
    if abs(best["correlation"]) > SUSPICIOUS:
        yield Finding(
            "warning",
            "suspicious_column",
            f"{modality} column {best['column']}, averaged over the steps, correlates {best['correlation']:.3f} with "
            "the label on the train fold.",
            "Check whether the features contain the label, or predictions of it.",
        )
    centred = measured["mean_zero"]
    if centred["utterances"] and centred["with_mean_zero"] >= _MOSTLY * centred["utterances"]:
        yield Finding(
            "warning",
            "normalised_per_utterance",
            f"{modality} has the mean 0 over the steps in {centred['with_mean_zero']} of {centred['utterances']} "
            "utterances: it was normalised per utterance, and mean pooling sees nothing.",
            "Use an encoder that reads sequences, such as encoder=bilstm, or features that were not normalised.",
        )


def _of_source(numbers: Mapping[str, Any]) -> Iterator[Finding]:
    """Known files, and the assumptions on ids, padding, lengths and modalities."""
    yield from _of_files(numbers)
    yield from _of_ids(numbers["reading"]["ids"])
    yield from _of_steps(numbers["reading"])


def _of_files(numbers: Mapping[str, Any]) -> Iterator[Finding]:
    origin = numbers["origin"]
    if origin and not origin["published"]:
        held = "".join(f"; {count} are videos of {name}" for name, count in origin["of_others"].items())
        named_right = next(iter(origin["of_others"]), None)
        yield Finding(
            "error",
            "foreign_videos",
            f"none of {counted(origin['videos'], 'video')} is in the published folds of {numbers['title']}: "
            f"{named(origin['examples'], origin['videos'])}{held}.",
            f"Type dataset={named_right}" if named_right else "Check whether it is the data set that you named.",
        )
    for source in numbers["sources"].values():
        if source["known"] is None:
            continue
        if source["known_dataset"] != numbers["dataset"]:
            yield Finding(
                "error",
                "other_data_set",
                f"{source['file']} is {source['known']} by the beginning of its SHA-256, and was read as "
                f"{numbers['title']}.",
                f"Type dataset={source['known_dataset']}",
            )
        else:
            yield Finding(
                "note",
                "known_file",
                f"{source['file']} is {source['known']}: its SHA-256 begins as {PUBLISHER} lists it.",
            )


def _of_ids(odd: Mapping[str, int]) -> Iterator[Finding]:
    unseen = "each counts as a video of its own, so a video in two folds would not be found"
    if count := odd.get("absent", 0):
        yield Finding(
            "warning",
            "ids_absent",
            f"{counted(count, 'utterance')} without an id: {unseen}.",
            "Give every utterance an id such as video$_$3 in the source.",
        )
    if count := odd.get("own_video", 0):
        yield Finding("note", "ids_without_video", f"{counted(count, 'id')} without a video's name: {unseen}.")
    if count := odd.get("numbered_by_start", 0):
        text = f"{counted(count, 'id')} without a segment's number: they are numbered by their start in the video."
        yield Finding("note", "numbered_by_start", text)


def _of_steps(reading: Mapping[str, Any]) -> Iterator[Finding]:
    for modality, sides in reading["padding"].items():
        if assumed := [fold for fold, side in sides.items() if side.endswith("(assumed)")]:
            side = sides[assumed[0]].removesuffix(" (assumed)")
            text = f"{modality} is taken to be padded on the {side}, as usual in its format; its rows do not show it"
            yield Finding("note", "padding_assumed", f"{text} ({counted(len(assumed), 'fold')}).")
    if beyond := {modality: count for modality, count in reading["beyond_length"].items() if count}:
        ids = dict.fromkeys(name for names in reading["beyond_length_utterances"].values() for name in names)
        where = f", of {named([*ids])}" if ids else ""
        yield Finding(
            "warning",
            "beyond_length",
            f"steps with values beyond the stated lengths were left out: {listed(beyond)}{where}.",
            "Check whether the lengths belong to these arrays; a transformer's output at padding looks the same.",
        )
    if reading["without_steps"]:
        text = f"{named(reading['without_steps'])}: 0 steps in all utterances, so the store does not hold it."
        yield Finding("warning", "without_steps", text)
    for modality, odd in reading["uneven"].items():
        yield Finding("warning", "uneven", f"{modality} {odd}: the store does not hold it.")
    if lacking := {modality: count for modality, count in reading["without_context"].items() if count}:
        yield Finding("note", "without_context", f"punchlines without a context: {listed(lacking)}.")
