"""Re-ranking of one query, slow and obvious: distances of candidates in float64, in the order of the first search."""

import numpy as np


def first_k(similarities, k, leave_out=None):
    """Positions of the k largest numbers; ties, and what is rounding, in their order."""
    order = [j for j in range(len(similarities)) if j != leave_out]
    return sorted(order, key=lambda j: (-round(similarities[j], 11), j))[:k]


def super_global(query, candidates, n_refine, beta):
    """Shao et al. (2023), section 3.3; one minus the score."""
    m = len(candidates)
    refined = []
    for i in range(m):
        similarities = [candidates[i] @ candidates[j] for j in range(m)]
        vector, total = candidates[i].copy(), 1.0
        for j in first_k(similarities, n_refine, leave_out=i):
            vector = vector + beta * similarities[j] * candidates[j]
            total += beta * similarities[j]
        refined.append(vector / total)
    first = [query @ vector for vector in refined]
    best = first_k(first, n_refine + 1)
    moved = np.max([refined[i] for i in best], axis=0)
    return np.array([1 - (first[i] + moved @ refined[i]) / 2 for i in range(m)])


def k_reciprocal(query, candidates, k1, k2, weight):
    """Zhong et al. (2017), sections 3.2 to 3.5."""
    pool = np.vstack([query, candidates])
    n = len(pool)
    similarities = pool @ pool.T
    distances = np.maximum(2 - 2 * similarities, 0)
    np.fill_diagonal(distances, 0)
    for i in range(n):
        if distances[i].max() > 0:
            distances[i] /= distances[i].max()

    def near(i, k):
        return [i, *first_k(similarities[i], k, leave_out=i)]

    def reciprocal(i, k):
        return {j for j in near(i, k) if i in near(j, k)}

    half = int(np.around(k1 / 2))
    features = np.zeros((n, n))
    for i in range(n):
        original = reciprocal(i, k1)
        members = set(original)
        for j in original:
            other = reciprocal(j, half)
            if 3 * len(original & other) > 2 * len(other):
                members |= other
        for j in members:
            features[i, j] = np.exp(-distances[i, j])
        features[i] /= features[i].sum()
    if k2 > 1:
        features = np.array([features[near(i, k2 - 1)].mean(axis=0) for i in range(n)])
    found = []
    for i in range(1, n):
        jaccard = 1 - np.minimum(features[0], features[i]).sum() / np.maximum(features[0], features[i]).sum()
        found.append((1 - weight) * jaccard + weight * distances[0, i])
    return np.array(found)


def diffusion(queries, items, k, k_query, alpha, gamma):
    """Iscen et al. (2017), equations 10 and 15: scores of all items, each a list of rows, divided by the largest."""
    nodes = np.vstack(items)
    item = np.repeat(np.arange(len(items)), [len(rows) for rows in items])
    n = len(nodes)
    similarities = nodes @ nodes.T
    near = [first_k(similarities[i], k, leave_out=i) for i in range(n)]
    weights = np.zeros((n, n))
    for i in range(n):
        for j in near[i]:
            if i in near[j]:
                weights[i, j] = max(similarities[i, j], 0) ** gamma
    sums = weights.sum(axis=1)
    scale = np.array([1 / np.sqrt(s) if s > 0 else 0 for s in sums])
    graph = scale[:, None] * weights * scale
    start = np.zeros(n)
    for query in np.atleast_2d(queries):
        for i in first_k(nodes @ query, k_query):
            start[i] += max(nodes[i] @ query, 0) ** gamma
    spread = np.linalg.solve(np.eye(n) - alpha * graph, start)
    scores = np.array([spread[item == i].sum() for i in range(len(items))])
    return scores / scores.max() if scores.max() > 0 else scores


def discriminative(query, ranked, n_positive, n_negative, C):
    """Minus the cosine with the normal of a linear SVM with squared hinge loss, its bias regularised like a weight."""
    from scipy.optimize import minimize

    n_positive = min(n_positive, len(ranked))
    n_negative = min(n_negative, len(ranked) - n_positive)
    if n_negative == 0:
        return np.zeros(len(ranked))
    rows = np.vstack([query, ranked[:n_positive], ranked[len(ranked) - n_negative :]])
    rows = np.hstack([rows, np.ones((len(rows), 1))])
    side = np.array([1.0] * (n_positive + 1) + [-1.0] * n_negative)

    def objective(w):
        slack = np.maximum(1 - side * (rows @ w), 0)
        return w @ w / 2 + C * (slack**2).sum(), w - 2 * C * rows.T @ (side * slack)

    w = minimize(objective, np.zeros(rows.shape[1]), jac=True, method="BFGS", options={"gtol": 1e-9}).x[:-1]
    length = np.linalg.norm(w)
    return -(ranked @ w) / length if length > 1e-9 else np.zeros(len(ranked))
