"""Which thresholds a call is judged by: the model card's, the node's, or those of a group."""

from __future__ import annotations

from callshield.settings import Settings
from callshield.threshold_settings import ThresholdSettings
from detectors.acoustic import Card
from detectors.risk import Policy


def card_policy(card: Card) -> Policy:
    """The thresholds that the model came with."""
    return Policy(card.caution, card.serious, card.release, sure=card.sure)


def policy_with(card: Card, base: Policy, own: ThresholdSettings) -> Policy:
    """A policy with thresholds of a site's own in it.

    Those that were found for another model are not used: scores of two models do not compare. A
    threshold that is not given follows the one that is, where the two would change places.
    """
    if not fits(card, own):
        return base
    caution = own.caution or base.caution
    serious = own.serious or base.serious
    if caution > serious:
        if own.serious is None:
            serious = caution
        else:
            caution = serious
    return Policy(caution, serious, min(card.release, caution), sure=max(card.sure, serious))


def fits(card: Card, own: ThresholdSettings) -> bool:
    """Whether thresholds are for this model (or for any)."""
    return not own.model or card.sha256.startswith(own.model)


def policies(card: Card, settings: Settings) -> tuple[Policy, dict[str, Policy]]:
    """The node's policy, and those of groups that have thresholds of their own, by name."""
    detector = settings.detector
    node = policy_with(card, card_policy(card), detector.thresholds)
    return node, {name: policy_with(card, node, own) for name, own in detector.groups.items()}


def strangers(card: Card, settings: Settings) -> list[str]:
    """Tables of the configuration whose thresholds are for another model."""
    tables = {"detector.thresholds": settings.detector.thresholds}
    tables |= {f"detector.groups.{name}": own for name, own in settings.detector.groups.items()}
    return [name for name, own in tables.items() if not fits(card, own)]
