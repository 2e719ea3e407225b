"""How much the model's answers change when a tensor is stored in a given type: measured once, good for every mix of types."""
