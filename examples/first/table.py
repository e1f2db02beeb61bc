"""A table: its density, the rows that are unusual, and a picture of two columns."""

from sklearn.datasets import load_wine

from nfvi import NFVI, plots

wine = load_wine(as_frame=True).data[["flavanoids", "color_intensity"]].astype("float32")

fit = NFVI("maf*3", seed=1).fit_data(wine, validation=0.2)

print(fit)
unusual = wine.assign(log_density=fit.score_samples(wine)).nsmallest(5, "log_density")
print(unusual)
print(fit.sample(5))  # draws: wines that could have been in the table
plots.density(fit, wine).figure.savefig("table.png")
