def apply_rotary_pos_emb(*args, **kwargs):
    raise NotImplementedError("the stand-in leaves rotary embeddings to Megatron's own code")


class _SplitAlongDim:
    @staticmethod
    def apply(tensor, dim, sizes):
        return tensor.split(sizes, dim)
