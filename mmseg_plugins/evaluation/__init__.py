from .assembly import OverlapAverage
from .dice import CaseDice, DiceScores, dice_scores

__all__ = ['CaseDice', 'DiceScores', 'OverlapAverage', 'dice_scores']
