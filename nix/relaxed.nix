# nixpkgs has one version of each package, which need not be in the ranges that ours ask for. So the ranges are dropped, on
# purpose and for all of our packages here: whether it works is for imports and checks to say.
{
  pythonRelaxDeps = true;
}
