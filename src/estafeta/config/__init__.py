"""main.cf, master.cf and the parameter registry."""
