// Y ~ N(Intercept + Xc b, sigma), Xc the columns of X but the first, less their means.
data {
  int<lower=1> N;
  vector[N] Y;
  int<lower=1> K;
  matrix[N, K] X;
}
transformed data {
  matrix[N, K - 1] Xc;
  for (i in 2 : K)
    Xc[ : , i - 1] = X[ : , i] - mean(X[ : , i]);
}
parameters {
  vector[K - 1] b;
  real Intercept;
  real<lower=0> sigma;
}
model {
  target += normal_lpdf(b | 0, 1) + student_t_lpdf(Intercept | 3, 8, 10);
  target += student_t_lpdf(sigma | 3, 0, 10) + log(2);
  target += normal_id_glm_lpdf(Y | Xc, Intercept, b, sigma);
}
