"""The two hidden layers before a prediction."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from mmsa.layers.dropout import Dropout


class TwoLayers(nn.Module):
    """Dropout, then two linear layers of one width, each with a ReLU.

    Args:
        input_dim: width of the input, >= 1.
        hidden_dim: width of both layers, >= 1.
        dropout: rate in [0, 1) on the input, in training only.

    Shapes: (B, input_dim) -> the first layer and the second, each (B, hidden_dim).
    """

    def __init__(self, input_dim: int, hidden_dim: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.dropout = Dropout(dropout)
        self.first = nn.Linear(input_dim, hidden_dim)
        self.second = nn.Linear(hidden_dim, hidden_dim)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        first = functional.relu(self.first(self.dropout(x)))
        return first, functional.relu(self.second(first))
