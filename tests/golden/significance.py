"""Makes crates/motherlode/tests/data/significance.json: what SciPy, statsmodels and NumPy say of random differences.

Of every sample: the p of the paired t-test (scipy.stats.ttest_1samp); the p of the paired randomisation test
(scipy.stats.permutation_test), exact up to 12 differences, else of 100,000 draws; SciPy's percentile bootstrap, and the
interval that Hesterberg (2015) makes of it, computed with NumPy from 100,000 draws; and the smallest difference that a
t-test at .05 finds with power .8. SciPy's and statsmodels' noncentral t lose digits where power is solved for, so that
the integral over the chi distribution is taken directly. Of strata (languages): the p of signs flipped within them,
exact, and the interval of draws within them. Of families: Holm's correction by statsmodels.

    pip install scipy==1.17.1 statsmodels==0.15.0
    python tests/golden/significance.py
"""

import json
from pathlib import Path

import numpy as np
import scipy.stats as st
from scipy.integrate import quad
from scipy.optimize import brentq
from statsmodels.stats.multitest import multipletests

OUTPUT = Path(__file__).resolve().parents[2] / "crates/motherlode/tests/data/significance.json"
DRAWS = 100_000


def randomisation(differences):
    total = lambda x, y, axis: np.sum(x - y, axis=axis)
    draws = 10**9 if len(differences) <= 12 else DRAWS
    zeros = np.zeros(len(differences))
    test = st.permutation_test(
        (np.array(differences), zeros), total, vectorized=True, permutation_type="samples", n_resamples=draws, rng=1
    )
    return test.pvalue


def stretched(differences, rng):
    """Means of bootstrap draws, stretched around the mean by √(n / (n − 1))."""
    values = np.array(differences)
    n = len(values)
    draws = values[rng.integers(0, n, (DRAWS, n))].mean(axis=1)
    return values.mean() + np.sqrt(n / (n - 1)) * (draws - values.mean())


def expanded(draws, freedom):
    tail = st.norm.cdf(st.t.ppf(0.025, freedom))
    return list(np.quantile(draws, [tail, 1 - tail]))


def power(shift, freedom):
    critical, reach, phi = st.t.ppf(0.975, freedom), 10 / np.sqrt(2 * freedom), st.norm.cdf
    density = lambda s: st.chi.pdf(s * freedom**0.5, freedom) * freedom**0.5
    inside = lambda s: (phi(critical * s - shift) - phi(-critical * s - shift)) * density(s)
    return 1 - quad(inside, max(0, 1 - reach), 1 + reach, epsabs=1e-13, limit=500)[0]


def detectable(n):
    """In standard deviations of the differences."""
    return brentq(lambda shift: power(shift, n - 1) - 0.8, 1, 20 if n < 4 else 4, xtol=1e-12) / n**0.5


def sample(differences, rng):
    n, bootstrap = len(differences), None
    if n >= 100:
        interval = st.bootstrap((differences,), np.mean, method="percentile", n_resamples=DRAWS // 5, rng=1)
        bootstrap = list(interval.confidence_interval)
    return {
        "differences": differences,
        "t_test": st.ttest_1samp(differences, 0).pvalue,
        "randomisation": randomisation(differences),
        "exact": n <= 12,
        "interval": expanded(stretched(differences, rng), n - 1),
        "bootstrap": bootstrap,
        "detectable": detectable(n) * float(np.std(differences, ddof=1)),
    }


def strata(parts, rng):
    weighted = [x / len(part) / len(parts) for part in parts for x in part]
    variances = np.array([np.var(part, ddof=1) / len(part) / len(parts) ** 2 for part in parts])
    freedom = variances.sum() ** 2 / sum(v**2 / (len(part) - 1) for v, part in zip(variances, parts))
    draws = np.mean([stretched(part, rng) for part in parts], axis=0)
    return {
        "parts": parts,
        "mean": float(np.mean([np.mean(part) for part in parts])),
        "freedom": float(freedom),
        "randomisation": randomisation(weighted),
        "interval": expanded(draws, freedom),
    }


def rounded(rng, n, centre):
    """Two decimals, so that ties and zeros occur."""
    return [round(float(x), 2) for x in rng.normal(centre, 0.2, n)]


def main():
    rng = np.random.default_rng(11)
    sizes = [(2, 0.1), (5, 0.2), (8, -0.1), (10, 0.05), (12, 0.15), (40, 0.05), (200, 0.02), (213, -0.04), (800, 0.0)]
    families = [[0.01, 0.04, 0.03, 0.005, 0.6], [0.2], [0.05, 0.05, 0.05], list(rng.uniform(0, 0.1, 16))]
    content = {
        "samples": [sample(rounded(rng, n, centre), rng) for n, centre in sizes],
        "strata": [
            strata([rounded(rng, 6, 0.1), rounded(rng, 5, 0.2)], rng),
            strata([rounded(rng, 3, 0.1), rounded(rng, 4, 0.0), rounded(rng, 5, 0.3)], rng),
        ],
        "holm": [{"raw": raw, "adjusted": list(multipletests(raw, method="holm")[1])} for raw in families],
        "effects": [{"queries": n, "effect": detectable(n)} for n in (2, 3, 10, 100, 213, 1000)],
        "noncentral": [
            {"freedom": df, "shift": shift, "t": t, "probability": st.nct.cdf(t, df, shift)}
            for df, shift, t in ((1, 1.3, 12.706), (9, 2.8, 2.262), (50, -1, 0.5))
        ],
    }
    OUTPUT.write_text(json.dumps(content, separators=(",", ":")).replace('{"', '\n{"') + "\n")


if __name__ == "__main__":
    main()
