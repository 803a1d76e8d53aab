"""Self-MM (Yu, Xu, Yuan, Wu, AAAI 2021), of word vectors, written plainly."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn.functional import l1_loss
from torch.nn.utils.rnn import pack_padded_sequence

from benchmarks.plain.loop import EPOCH, Item
from benchmarks.plain.mmlatch import AttentiveLSTM

RECURRENT = {"audio": 16, "visual": 32}
HEADS = {"text": (32, 0.1), "audio": (16, 0.1), "visual": (32, 0.0)}
"""Width, and rate of the dropout before it."""
BOUND = 3.0
EPSILON = 1e-8


class MeanState(nn.Module):
    """The mean over the steps of an attentive LSTM: (B, T, D), lengths (B,) -> (B, H)."""

    def __init__(self, input_dim: int, hidden_dim: int) -> None:
        super().__init__()
        self.encoder = AttentiveLSTM(input_dim, hidden_dim, "sum", 0.2)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        real = (torch.arange(x.shape[1])[None, :] < lengths[:, None]).float()
        return (self.encoder(x, lengths) * real[:, :, None]).sum(dim=1) / lengths[:, None]


class LastState(nn.Module):
    """The last state of a one-way LSTM over packed sequences, mapped: (B, T, D), lengths (B,) -> (B, H)."""

    def __init__(self, input_dim: int, hidden_dim: int) -> None:
        super().__init__()
        self.lstm = nn.LSTM(input_dim, hidden_dim, batch_first=True)
        self.map = nn.Linear(hidden_dim, hidden_dim)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        _, (last, _) = self.lstm(pack_padded_sequence(x, lengths, batch_first=True))
        return self.map(last[0])


class TwoLayers(nn.Module):
    """Dropout and two layers: (B, D) -> the first and the second, each (B, H)."""

    def __init__(self, input_dim: int, hidden_dim: int, dropout: float) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.first = nn.Linear(input_dim, hidden_dim)
        self.second = nn.Linear(hidden_dim, hidden_dim)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        first = torch.relu(self.first(self.dropout(x)))
        return first, torch.relu(self.second(first))


class SelfMM(nn.Module):
    """A head of the whole and one per modality, whose labels training generates: features, lengths (B,) -> (B,).

    Args:
        widths: features of text, audio and visual.
        hidden_dim: of the text's encoder, per direction, and of the whole's layers.
    """

    true_lengths = True

    def __init__(self, widths: Mapping[str, int], hidden_dim: int) -> None:
        super().__init__()
        text = MeanState(widths["text"], hidden_dim)
        self.encoders = nn.ModuleDict({"text": text} | {m: LastState(widths[m], n) for m, n in RECURRENT.items()})
        encoded_dims = {"text": hidden_dim} | RECURRENT
        self.whole = TwoLayers(sum(encoded_dims.values()), hidden_dim, 0.0)
        self.head = nn.Linear(hidden_dim, 1)
        self.layers = nn.ModuleDict({m: TwoLayers(n, *HEADS[m]) for m, n in encoded_dims.items()})
        self.outputs = nn.ModuleDict({m: nn.Linear(HEADS[m][0], 1) for m in encoded_dims})
        self.dims = {"whole": hidden_dim} | {m: HEADS[m][0] for m in encoded_dims}

    def begin(self, utterances: list[Item]) -> None:
        """Number the utterances to train on; every modality's labels are theirs, and features are zeros."""
        for row, each in enumerate(utterances):
            each["row"] = torch.tensor(row)
        labels = torch.stack([each["label"] for each in utterances])
        self.labels = {name: labels.clone() for name in self.dims}
        self.features = {name: labels.new_zeros(len(labels), dim) for name, dim in self.dims.items()}
        self.centres = {name: (labels.new_zeros(dim), labels.new_zeros(dim)) for name, dim in self.dims.items()}

    def encoded(self, features: Mapping[str, Tensor], lengths: Tensor) -> dict[str, Tensor]:
        """(B, H_m) of each modality."""
        return {m: encoder(features[m], lengths) for m, encoder in self.encoders.items()}

    def forward(self, features: Mapping[str, Tensor], lengths: Tensor) -> Tensor:
        _, second = self.whole(torch.cat([*self.encoded(features, lengths).values()], dim=-1))
        return self.head(second).squeeze(-1)

    def loss(self, features: Mapping[str, Tensor], lengths: Tensor, labels: Tensor, rows: Tensor) -> Tensor:
        """The absolute error, and those of the modalities against their own labels, which are then renewed."""
        encoded = self.encoded(features, lengths)
        first, second = self.whole(torch.cat([*encoded.values()], dim=-1))
        made = {"whole": first.detach()}
        loss = l1_loss(self.head(second).squeeze(-1), labels)
        for m, x in encoded.items():
            first, second = self.layers[m](x)
            made[m] = first.detach()
            label = self.labels[m][rows]
            error = torch.abs(self.outputs[m](second).squeeze(-1) - label)
            loss = loss + (torch.tanh(torch.abs(label - labels)) * error).mean()
        self.renew(rows, made)
        return loss

    def renew(self, rows: Tensor, made: Mapping[str, Tensor]) -> None:
        """Labels by the centres of the batch before, then features, then the centres of all utterances."""
        leaning = {name: self.leaning(name, x) for name, x in made.items()}
        truth, whole = self.labels["whole"][rows], leaning["whole"]
        for m in self.encoders:
            label = 0.5 * leaning[m] / (whole + EPSILON) * truth + 0.5 * (truth + leaning[m] - whole)
            label = torch.clamp(label, -BOUND, BOUND)
            self.labels[m][rows] = (EPOCH - 1) / (EPOCH + 1) * self.labels[m][rows] + 2 / (EPOCH + 1) * label
        for name, x in made.items():
            self.features[name][rows] = x
            labels, features = self.labels[name], self.features[name]
            self.centres[name] = features[labels > 0].mean(dim=0), features[labels < 0].mean(dim=0)

    def leaning(self, name: str, x: Tensor) -> Tensor:
        """How much nearer features (B, d) are to the positive centre than to the negative one (B,)."""
        to_positive, to_negative = (torch.norm(x - centre, dim=1) for centre in self.centres[name])
        return (to_negative - to_positive) / (to_positive + EPSILON)
