"use strict";

// The Clopper-Pearson interval of a share, as edgead/scoring/intervals.py computes it: the incomplete beta function by
// the continued fraction of Press and others (2007), section 6.4, and its inverse by bisection.

function logGamma(x) {
  // Lanczos, g = 7 with 9 terms: 15 digits for x > 0.5.
  const terms = [
    676.5203681218851, -1259.1392167224028, 771.32342877765313, -176.61502916214059, 12.507343278686905,
    -0.13857109526572012, 9.9843695780195716e-6, 1.5056327351493116e-7,
  ];
  let sum = 0.99999999999980993;
  terms.forEach((term, i) => { sum += term / (x + i); });
  const t = x + 6.5;
  return 0.5 * Math.log(2 * Math.PI) + (x - 0.5) * Math.log(t) - t + Math.log(sum);
}

function incompleteBeta(x, a, b) {
  if (x <= 0 || x >= 1) return x <= 0 ? 0 : 1;
  // The fraction converges quickly on this side of the mean only.
  if (x > (a + 1) / (a + b + 2)) return 1 - incompleteBeta(1 - x, b, a);
  const awayFromZero = (value) => (Math.abs(value) > 1e-300 ? value : 1e-300);
  let c = 1;
  let d = 1 / awayFromZero(1 - (a + b) * x / (a + 1));
  let result = d;
  for (let m = 1; m < 10000; m++) {
    const even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m));
    const odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1));
    for (const term of [even, odd]) {
      d = 1 / awayFromZero(1 + term * d);
      c = awayFromZero(1 + term / c);
      result *= c * d;
    }
    if (Math.abs(c * d - 1) < 1e-13) break;
  }
  const front = logGamma(a + b) - logGamma(a) - logGamma(b) + a * Math.log(x) + b * Math.log1p(-x);
  return Math.exp(front) * result / a;
}

function clopperPearson(count, n, confidence = 0.95) {
  const inverse = (share, a, b) => {
    let [low, high] = [0, 1];
    for (let step = 0; step < 50; step++) {
      const middle = (low + high) / 2;
      if (incompleteBeta(middle, a, b) < share) low = middle; else high = middle;
    }
    return (low + high) / 2;
  };
  const tail = (1 - confidence) / 2;
  return [
    count === 0 ? 0 : inverse(tail, count, n - count + 1),
    count === n ? 1 : inverse(1 - tail, count + 1, n - count),
  ];
}
