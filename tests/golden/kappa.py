"""Golden values of `crates/motherlode/src/judge/kappa.rs`.

pip install numpy scikit-learn statsmodels; python tests/golden/kappa.py
"""
import numpy as np
import sklearn
import statsmodels
from sklearn.metrics import cohen_kappa_score
from statsmodels.stats.inter_rater import cohens_kappa, fleiss_kappa

TABLES = [
    [[30, 4, 1], [6, 12, 5], [0, 3, 20]],
    [[5, 0, 0], [1, 0, 2], [0, 0, 1]],
    [[0, 3, 4], [2, 0, 5], [6, 1, 0]],
    [[9, 1, 0], [1, 0, 0], [0, 0, 0]],
]
# Three raters, then five; the last is that of Fleiss 1971's kind with uneven items.
ITEMS = [
    [[3, 0, 0], [2, 1, 0], [0, 3, 0], [1, 1, 1], [0, 0, 3], [0, 2, 1]],
    [[5, 0, 0], [4, 1, 0], [0, 5, 0], [1, 2, 2], [0, 0, 5], [2, 3, 0], [1, 0, 4]],
    [[2, 0, 0], [1, 1, 0], [0, 0, 2], [0, 2, 0]],
]

print("scikit-learn", sklearn.__version__, "statsmodels", statsmodels.__version__, "numpy", np.__version__)
for table in TABLES:
    pairs = [(row, column) for row in range(3) for column in range(3) for _ in range(table[row][column])]
    one, other = zip(*pairs)
    result = cohens_kappa(np.array(table))
    plain = cohen_kappa_score(one, other, labels=[0, 1, 2])
    weighted = cohen_kappa_score(one, other, labels=[0, 1, 2], weights="quadratic")
    assert abs(plain - result.kappa) < 1e-12
    print("cohen", table, repr(float(plain)), repr(float(result.std_kappa)), repr(float(weighted)))
for items in ITEMS:
    print("fleiss", items, repr(float(fleiss_kappa(np.array(items), method="fleiss"))))
