"""Matrix products of training in autocast's precision, whose sums reach float32 gradients unrounded."""

import torch


def multiply(x, weight, bias=None):
    """x [..., in] @ weight [in, out], in x's dtype. bias: added, but without a gradient."""
    return _Product.apply(x, weight, bias)


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weight, bias):
        ctx.dtype, weight = weight.dtype, weight.to(x.dtype)
        ctx.save_for_backward(x, weight)
        rows = x.reshape(-1, x.shape[-1])
        y = rows @ weight if bias is None else torch.addmm(bias.to(x.dtype), rows, weight)
        return y.view(*x.shape[:-1], -1)

    @staticmethod
    def backward(ctx, of_y):
        x, weight = ctx.saved_tensors
        rows, of_rows = x.reshape(-1, x.shape[-1]), of_y.reshape(-1, of_y.shape[-1])
        of_x = (of_rows @ weight.T).view(x.shape) if ctx.needs_input_grad[0] else None
        of_weight = product(rows.T, of_rows, ctx.dtype) if ctx.needs_input_grad[1] else None
        return of_x, of_weight, None


def product(a, b, dtype):
    """a @ b in `dtype`, by the product's own kernel where it can write it."""
    if a.is_cuda and dtype == torch.float32 != a.dtype:
        return torch.mm(a, b, out_dtype=dtype)
    return (a @ b).to(dtype)


def add_product(total, a, b):
    """total += a @ b, by the product's own kernel where it can add to float32."""
    if total.is_cuda and total.dtype == torch.float32 != a.dtype:
        torch.addmm(total, a, b, out_dtype=torch.float32, out=total)
    else:
        total += a @ b
