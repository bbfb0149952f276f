"""When training ends before its time."""

import math


class EarlyStopping:
    """Ends training when the validation loss has not fallen for `patience` epochs, and restores the best weights.

    Args:
        patience: None: training ends when it is over, where it is.
        first: the epoch from which on losses count, counted from 1: what went before was another network.
    """

    def __init__(self, patience: int | None, first: int = 1):
        self.patience, self.lowest, self.waited, self.best = patience, math.inf, 0, None
        self.coming = max(first, 1) - 1

    def hear(self, val_loss: float, engine) -> None:
        """Take notice of an epoch's validation loss."""
        self.coming -= 1
        if self.patience is None or self.coming >= 0:
            return
        self.waited += 1
        if val_loss < self.lowest:
            self.lowest, self.waited, self.best = val_loss, 0, engine.state()

    def state(self) -> dict:
        """All that it remembers."""
        return {"lowest": self.lowest, "waited": self.waited, "coming": self.coming, "best": self.best}

    def restore(self, state: dict) -> None:
        """Go back to what `state` gave."""
        self.lowest, self.waited, self.coming, self.best = (state[n] for n in ("lowest", "waited", "coming", "best"))

    @property
    def due(self) -> bool:
        """Whether training is to end."""
        return self.patience is not None and self.waited >= self.patience

    def go_back(self, engine) -> bool:
        """Restore the weights of the lowest validation loss; whether they are others than the last."""
        if self.best is None or not self.waited:
            return False
        engine.restore(self.best)
        return True
