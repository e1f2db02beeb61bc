// y ~ N(0, K + sigma I), sigma a variance.
data {
  int<lower=1> N;
  array[N] real x;
  vector[N] y;
}
parameters {
  real<lower=0> rho;
  real<lower=0> alpha;
  real<lower=0> sigma;
}
model {
  matrix[N, N] L = cholesky_decompose(add_diag(gp_exp_quad_cov(x, alpha, rho), sigma));
  target += gamma_lpdf(rho | 25, 4) + normal_lpdf(alpha | 0, 2) + normal_lpdf(sigma | 0, 1);
  target += 2 * log(2);
  target += multi_normal_cholesky_lpdf(y | rep_vector(0, N), L);
}
