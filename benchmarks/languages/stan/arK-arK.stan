// y_t ~ N(alpha + sum_k beta_k y_{t-k}, sigma), from the K first on.
data {
  int<lower=0> K;
  int<lower=0> T;
  array[T] real y;
}
parameters {
  real alpha;
  array[K] real beta;
  real<lower=0> sigma;
}
model {
  target += normal_lpdf(alpha | 0, 10) + normal_lpdf(beta | 0, 10);
  target += cauchy_lpdf(sigma | 0, 2.5) + log(2);
  for (t in (K + 1) : T) {
    real mu = alpha;
    for (k in 1 : K)
      mu += beta[k] * y[t - k];
    target += normal_lpdf(y[t] | mu, sigma);
  }
}
