"""The order of the stages, and nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from mmsa.errors import ConfigError
from mmsa.stages import Encoder, Feedback, Fusion, Objective, Regularizer
from mmsa.types import Batch, Embedded, Encoded, Internals, Mix, Moment, Output, Regularized


class MultimodalModel(nn.Module):
    """Encoders, top-down feedback, regularizer, fusion and head, in this order.

    Args:
        encoders: one per modality.
        feedback: run `num_passes` times.
        regularizer: at the sites "inputs", "encoded" and "streams"; utterances may be mixed at one of them.
        fusion: of the encodings.
        head: (B, F) -> (B, C).
        primary: name of the prediction.

    Shapes: a Batch of B utterances -> Output with predictions[primary] (B, C).
    """

    def __init__(
        self,
        encoders: Mapping[str, Encoder],
        feedback: Feedback,
        regularizer: Regularizer,
        fusion: Fusion,
        head: nn.Module,
        primary: str,
    ) -> None:
        super().__init__()
        self.encoders: Mapping[str, Encoder] = nn.ModuleDict(encoders)  # type: ignore[arg-type, assignment]
        self.feedback = feedback
        self.regularizer = regularizer
        self.fusion = fusion
        self.head = head
        self.primary = primary

    def forward(self, batch: Batch) -> Output:
        return self.trace(batch)[0]

    def trace(self, batch: Batch, complete: bool = False) -> tuple[Output, Internals]:
        """The output and the internals; `complete` encodes the unregularized inputs as well."""
        embedded = self.embed(batch)
        inputs, at_inputs = self.regularized(embedded)
        encoded = self.encode(inputs)

        masks: Mapping[str, Tensor] = {}
        for _ in range(self.feedback.num_passes):
            masked, masks = self.feedback(inputs, encoded, self.fusion)
            encoded = self.encode(masked)

        reads = self.fusion.reads
        at_encoded = self.regularizer("encoded", {m: part.part(reads) for m, part in encoded.items()})
        interaction = self.fusion.interact(
            {m: part.replaced(reads, at_encoded.streams[m]) for m, part in encoded.items()}
        )
        at_streams = self.regularizer("streams", interaction.streams)
        fused = self.fusion.combine(at_streams.streams)

        regularized = {"inputs": at_inputs, "encoded": at_encoded, "streams": at_streams}
        losses = {**interaction.losses, **fused.losses}
        output = Output({self.primary: self.head(fused.vector)}, self.primary, losses, masks, the_mix(regularized))
        whole = self.encode(embedded) if complete else {}
        return output, Internals(encoded, at_streams.streams, fused, regularized, whole)

    def embed(self, batch: Batch) -> dict[str, Embedded]:
        """The encoders' input from a batch, per modality."""
        inputs = {}
        for m, encoder in self.encoders.items():
            pieces = batch.pieces.get(m)
            values = encoder.embed(batch.features[m])  # (B, T, D), or (B, P, D) of word pieces
            inputs[m] = Embedded(values, batch.lengths[m], pieces, None if pieces is None else batch.features[m])
        return inputs

    def regularized(self, inputs: Mapping[str, Embedded]) -> tuple[dict[str, Embedded], Regularized]:
        """The inputs after the regularizer.

        Raises:
            ConfigError: it mixes word pieces, whose words differ from utterance to utterance.
        """
        before = {m: part.steps for m, part in inputs.items()}
        done = self.regularizer("inputs", before)
        in_pieces = [m for m, part in inputs.items() if part.pieces is not None]
        if done.mix is not None and in_pieces:
            raise ConfigError(
                f"regularizer.sites=[inputs] would mix the word pieces of {in_pieces[0]}, which differ in number.\n"
                "  type regularizer.sites=[encoded]"
            )
        after = done.streams
        return {m: p if after[m] is before[m] else p.replaced(after[m]) for m, p in inputs.items()}, done

    def encode(self, inputs: Mapping[str, Embedded]) -> dict[str, Encoded]:
        """Embedded -> Encoded, per modality."""
        return {m: encoder(inputs[m]) for m, encoder in self.encoders.items()}


class Learner(nn.Module):
    """A model and its objective, which train together.

    Args:
        model: predicts.
        objective: gives the losses.

    Shapes: a Batch and a Moment -> named losses, scalars.
    """

    def __init__(self, model: MultimodalModel, objective: Objective) -> None:
        super().__init__()
        self.model = model
        self.objective: Any = objective

    def forward(self, batch: Batch, moment: Moment) -> dict[str, Tensor]:
        output, internals = self.model.trace(batch, self.objective.reads_complete)
        return dict(self.objective(output, internals, batch, moment))

    def named(self) -> dict[str, nn.Parameter]:
        """The parameters by name: those of the model as in a checkpoint, then those of the objective."""
        own = {f"objective.{name}": parameter for name, parameter in self.objective.named_parameters()}
        return {**dict(self.model.named_parameters()), **own}


def the_mix(regularized: Mapping[str, Regularized]) -> Mix | None:
    """How utterances were mixed, at whichever site.

    Raises:
        ConfigError: they were mixed at more than one.
    """
    mixed = {site: done.mix for site, done in regularized.items() if done.mix is not None}
    if len(mixed) > 1:
        first, *_ = mixed
        raise ConfigError(
            f"regularizer.sites=[{','.join(mixed)}] mixes utterances twice.\n  type regularizer.sites=[{first}]"
        )
    return next(iter(mixed.values()), None)
