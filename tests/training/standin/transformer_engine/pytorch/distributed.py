class CudaRNGStatesTracker:
    def __init__(self):
        self.states = {}

    def reset(self):
        self.states = {}

    def set_states(self, states):
        self.states = states

    def add(self, name, seed):
        self.states[name] = seed


def checkpoint(function, *args, **kwargs):
    return function(*args)


def activation_recompute_forward(*args, **kwargs):
    raise NotImplementedError("the stand-in recomputes nothing")
