"""Plans which tensor is stored in which type, from sensitivities and a budget."""

from builders.plan.stage import VERSION, plan

__all__ = ["VERSION", "plan"]
