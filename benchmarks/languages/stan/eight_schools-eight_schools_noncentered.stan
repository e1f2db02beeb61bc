data {
  int<lower=0> J;
  array[J] real y;
  array[J] real<lower=0> sigma;
}
parameters {
  vector[J] theta_trans;
  real mu;
  real<lower=0> tau;
}
transformed parameters {
  vector[J] theta = theta_trans * tau + mu;
}
model {
  target += normal_lpdf(mu | 0, 5) + cauchy_lpdf(tau | 0, 5) + log(2);
  target += std_normal_lpdf(theta_trans) + normal_lpdf(y | theta, sigma);
}
