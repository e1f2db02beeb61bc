// A Stan model that keeps its data, behind functions of plain C; see stan_held.py. It is compiled
// together with what Stan's compiler makes of a program, before it.
#include <stan/model/model_header.hpp>

#include <stan/io/json/json_data.hpp>

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <exception>
#include <limits>
#include <sstream>
#include <string>
#include <vector>

stan::model::model_base& new_model(stan::io::var_context& data, unsigned int seed,
                                   std::ostream* messages);

namespace nfvi {

using Model = stan::model::model_base;
using Values = Eigen::VectorXd;
using Variables = Eigen::Matrix<stan::math::var, Eigen::Dynamic, 1>;

inline void tell(const std::string& what, char* message, int size) {
  std::strncpy(message, what.c_str(), size - 1);
  message[size - 1] = '\0';
}

// Each thread has a tape of its own, which lives as long as the thread.
inline void require_tape() { thread_local stan::math::ChainableStack tape; }

inline double density(const Model& model, const double* point, double* gradient) {
  const int dim = model.num_params_r();
  Values x = Eigen::Map<const Values>(point, dim);
  if (gradient == nullptr) return model.log_prob_jacobian(x, nullptr);
  stan::math::nested_rev_autodiff nested;
  Variables variables(x);
  stan::math::var value = model.log_prob_jacobian(variables, nullptr);
  stan::math::grad(value.vi_);
  Eigen::Map<Values>(gradient, dim) = variables.adj();
  return value.val();
}

}  // namespace nfvi

// Each returns 0, or 1 with a message of what went wrong.
extern "C" {

int nfvi_open(const char* data, void** model, char* message, int size) {
  nfvi::require_tape();
  try {
    std::istringstream text(data);
    stan::json::json_data context(text);
    *model = &new_model(context, 1, nullptr);
    return 0;
  } catch (const std::exception& error) {
    nfvi::tell(error.what(), message, size);
    return 1;
  }
}

void nfvi_close(void* model) { delete static_cast<nfvi::Model*>(model); }

int nfvi_dim(const void* model) { return static_cast<const nfvi::Model*>(model)->num_params_r(); }

// The names of the scalars of parameters and transformed parameters, by lines; or how long they are.
int nfvi_names(const void* model, char* names, int size) {
  std::vector<std::string> found;
  static_cast<const nfvi::Model*>(model)->constrained_param_names(found, true, false);
  std::string text;
  for (const std::string& name : found) text += name + "\n";
  if (static_cast<int>(text.size()) < size) nfvi::tell(text, names, size);
  return text.size() + 1;
}

// log p with its constants and Jacobian at one point.
int nfvi_density(const void* model, const double* point, double* value, char* message, int size) {
  nfvi::require_tape();
  try {
    *value = nfvi::density(*static_cast<const nfvi::Model*>(model), point, nullptr);
    return 0;
  } catch (const std::exception& error) {
    nfvi::tell(error.what(), message, size);
    return 1;
  }
}

// The same at n points, one behind the other, and the gradients where they are not null; minus
// infinity and a gradient of 0 where the model rejects a point.
void nfvi_densities(const void* model, const double* points, int n, double* values,
                    double* gradients) {
  nfvi::require_tape();
  const nfvi::Model& made = *static_cast<const nfvi::Model*>(model);
  const int dim = made.num_params_r();
  for (int i = 0; i < n; ++i) {
    double* gradient = gradients == nullptr ? nullptr : gradients + std::size_t(i) * dim;
    try {
      values[i] = nfvi::density(made, points + std::size_t(i) * dim, gradient);
    } catch (const std::exception& error) {
      values[i] = -std::numeric_limits<double>::infinity();
      if (gradient != nullptr) std::fill(gradient, gradient + dim, 0.0);
    }
  }
}

int nfvi_constrain(const void* model, const double* point, double* scalars, char* message,
                   int size) {
  nfvi::require_tape();
  try {
    const nfvi::Model& made = *static_cast<const nfvi::Model*>(model);
    stan::rng_t rng = stan::services::util::create_rng(0, 1);
    nfvi::Values x = Eigen::Map<const nfvi::Values>(point, made.num_params_r());
    nfvi::Values found;
    made.write_array(rng, x, found, true, false, nullptr);
    Eigen::Map<nfvi::Values>(scalars, found.size()) = found;
    return 0;
  } catch (const std::exception& error) {
    nfvi::tell(error.what(), message, size);
    return 1;
  }
}
}
