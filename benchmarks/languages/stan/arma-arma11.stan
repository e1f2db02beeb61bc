// y_t = mu + phi y_{t-1} + theta e_{t-1} + e_t, from y_0 = mu and e_0 = 0.
data {
  int<lower=1> T;
  array[T] real y;
}
parameters {
  real mu;
  real phi;
  real theta;
  real<lower=0> sigma;
}
model {
  vector[T] err;
  target += normal_lpdf(mu | 0, 10) + normal_lpdf(phi | 0, 2) + normal_lpdf(theta | 0, 2);
  target += cauchy_lpdf(sigma | 0, 2.5) + log(2);
  err[1] = y[1] - (mu + phi * mu);
  for (t in 2 : T)
    err[t] = y[t] - (mu + phi * y[t - 1] + theta * err[t - 1]);
  target += normal_lpdf(err | 0, sigma);
}
