"""Second-order pooling of regions: weighted second moment, regularised matrix logarithm, vector.

The equations are those of Jeong et al. (2017), "Regional deep feature aggregation for image retrieval", ICASSP.

Functions of batched tensors on any device. The local descriptors stay in the precision of the maps; second moments and
logarithms are float64, because the logarithm shows the small eigenvalues as large as the large ones.
"""

from __future__ import annotations

import math

import torch

from ..._linalg import l2

# Regions are taken together by their number of cells, rounded up to a multiple of this.
_ROUND = 32


def region_sums(maps: torch.Tensor, weights: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
    """First-order region vectors, ``beta o sum over cells of the region``, l2-normalised (eqs 3 and 9).

    Parameters
    ----------
    maps : tensor of shape (N, K, H, W)
        Feature maps.
    weights : tensor of shape (N, K)
        Channel weights beta.
    masks : tensor of shape (N, M, H * W)
        0/1 membership of the cells (eq 3), or the spatial weights alpha inside each region and 0 outside (eq 9).

    Returns
    -------
    vectors : tensor of shape (N, M, K)
        In the dtype of the maps; a region without response is zero.
    """
    sums = torch.bmm(masks.to(maps.dtype), maps.flatten(2).transpose(1, 2))
    return l2(sums * weights[:, None].to(maps.dtype))


def local_descriptors(maps: torch.Tensor, weights: torch.Tensor, axes: torch.Tensor) -> torch.Tensor:
    """Reduced local descriptors ``U^T (beta o f_p)``, without subtracting a mean (eq 4).

    Parameters
    ----------
    maps : tensor of shape (N, K, H, W)
        Feature maps.
    weights : tensor of shape (N, K)
        Channel weights beta.
    axes : tensor of shape (K', K)
        Principal axes in rows.

    Returns
    -------
    local : tensor of shape (N, H * W, K')
        In the dtype of the maps.
    """
    weighted = (axes * weights[:, None]).to(maps.dtype)
    return torch.bmm(maps.flatten(2).transpose(1, 2), weighted.transpose(1, 2))


def second_order(
    local: torch.Tensor,
    spatial: torch.Tensor,
    masks: torch.Tensor,
    reg: float = 1e-3,
    offdiag_scale: float = 1.0,
    trace_normalize: bool = False,
) -> torch.Tensor:
    """``l2(vec(log G))`` of every region, with ``G`` its alpha-weighted second moment (eq 5).

    Parameters
    ----------
    local : tensor of shape (N, P, K')
        Local descriptors of the cells.
    spatial : tensor of shape (N, P)
        Spatial weights alpha, non-negative.
    masks : tensor of shape (N, M, P), dtype bool
        Cells of the regions.
    reg : float
        ``reg * trace(G) / K'`` is added to the diagonal: a region with fewer cells than K' has a singular G.
    offdiag_scale : float
        Factor of the entries off the diagonal; sqrt(2) makes dot products those of the matrices. The paper
        prints the plain triangle, factor 1.
    trace_normalize : bool
        Whether G is divided by its trace, so that the scale of the features does not matter.

    Returns
    -------
    vectors : tensor of shape (N, M, K' (K' + 1) / 2), float64
        The upper triangles row by row; zero for a region without response.
    """
    n_images, n_regions = masks.shape[:2]
    size = local.shape[2]
    vectors = local.new_zeros(n_images, n_regions, size * (size + 1) // 2, dtype=torch.float64)
    weights = torch.where(masks, spatial[:, None].double(), 0)
    # squares of what remains neither overflow nor vanish
    largest = local.abs().amax(dim=(1, 2), keepdim=True)
    local = local / torch.where(largest > 0, largest, 1)
    scale = 2 * torch.where(largest > 0, largest, 1).double().log()[:, :, 0]
    n_cells = (weights > 0).sum(dim=2)
    # regions of alike many cells are taken together; what is filled up has weight zero and changes nothing
    rounded = (n_cells + _ROUND - 1) // _ROUND * _ROUND
    for count in torch.unique(rounded[n_cells > 0]).tolist():
        image, region = torch.nonzero(rounded == count, as_tuple=True)
        own = weights[image, region]
        count = int(n_cells[image, region].max())
        cell = torch.sort((own == 0).byte(), dim=1, stable=True).indices[:, :count]
        root = (own.gather(1, cell) / own.sum(dim=1, keepdim=True)).sqrt()
        factors = local[image[:, None], cell].double() * root[:, :, None]
        logs, alive = regularised_log(factors, reg, trace_normalize)
        if not trace_normalize:
            logs.diagonal(dim1=1, dim2=2).add_(scale[image])
        flat = vectorize(logs, offdiag_scale)
        vectors[image, region] = torch.where(alive[:, None], l2(flat), 0)
    return vectors


def regularised_log(
    factors: torch.Tensor, reg: float, trace_normalize: bool = False
) -> tuple[torch.Tensor, torch.Tensor]:
    """``log(G + reg * trace(G) / K' * I)`` of ``G = A^T A``, by the cheaper of two exact routes.

    With at least as many rows in A as columns, the eigenvalues of G are replaced by their logarithms. With fewer, the
    eigenvalues w of the smaller ``A A^T = V diag(w) V^T`` suffice: ``log(A^T A + e I) = log(e) I + A^T V diag(
    log(1 + w / e) / w) V^T A``, in which no small number is divided by.

    Parameters
    ----------
    factors : tensor of shape (R, n, K'), float64
        The matrices A. Rows of zeros change nothing.
    reg : float
        Regularisation relative to the mean eigenvalue.
    trace_normalize : bool
        Whether G is divided by its trace first.

    Returns
    -------
    logs : tensor of shape (R, K', K')
        Symmetric matrices.
    alive : tensor of shape (R,), dtype bool
        False where G is zero and has no logarithm; `logs` holds finite numbers without meaning there.
    """
    n, size = factors.shape[1:]
    turned = factors.transpose(1, 2)
    small = n < size
    gram = factors @ turned if small else turned @ factors
    # G is taken with trace 1, which gives all matrices the same ridge
    trace = gram.diagonal(dim1=1, dim2=2).sum(dim=1)[:, None]
    alive = trace > 0
    trace = torch.where(alive, trace, 1)
    ridge = reg / size
    values, axes = torch.linalg.eigh(gram / trace[:, :, None])
    values = values.clamp_min(0)
    if small:
        gain = torch.where(values > 0, torch.log1p(values / ridge) / values, 1 / ridge)
        half = (gain / trace).sqrt()[:, :, None] * (axes.transpose(1, 2) @ factors)
        logs = half.transpose(1, 2) @ half
        logs.diagonal(dim1=1, dim2=2).add_(math.log(ridge))
    else:
        logs = (axes * (values + ridge).log()[:, None]) @ axes.transpose(1, 2)
    if not trace_normalize:
        logs.diagonal(dim1=1, dim2=2).add_(trace.log())
    return logs, alive[:, 0]


def vectorize(matrices: torch.Tensor, offdiag_scale: float = 1.0) -> torch.Tensor:
    """Upper triangles with the diagonal, row by row (vec of eq 5).

    Parameters
    ----------
    matrices : tensor of shape (..., K', K')
        Symmetric matrices.
    offdiag_scale : float
        Factor of the entries off the diagonal.

    Returns
    -------
    vectors : tensor of shape (..., K' (K' + 1) / 2)
        The entries.
    """
    size = matrices.shape[-1]
    row, column = torch.triu_indices(size, size, device=matrices.device)
    vectors = matrices.flatten(-2)[..., row * size + column]
    if offdiag_scale != 1:
        vectors = torch.where(row == column, vectors, vectors * float(offdiag_scale))
    return vectors
