"""When training ends before its time."""

import math


class EarlyStopping:
    """Ends training when the validation loss has not fallen for `patience` epochs, and restores the best weights.

    Args:
        patience: None: training ends when it is over, where it is.
    """

    def __init__(self, patience: int | None):
        self.patience, self.lowest, self.waited, self.state = patience, math.inf, 0, None

    def hear(self, val_loss: float, engine) -> None:
        """Take notice of an epoch's validation loss."""
        if self.patience is None:
            return
        self.waited += 1
        if val_loss < self.lowest:
            self.lowest, self.waited, self.state = val_loss, 0, engine.state()

    @property
    def due(self) -> bool:
        """Whether training is to end."""
        return self.patience is not None and self.waited >= self.patience

    def go_back(self, engine) -> bool:
        """Restore the weights of the lowest validation loss; whether they are others than the last."""
        if self.state is None or not self.waited:
            return False
        engine.restore(self.state)
        return True
