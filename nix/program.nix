# Programs of a Python environment as a package of their own, without the environment's other programs.
# They start as the environment's, so that what they start finds its modules: workers, monitors and user endpoints are
# `sys.executable -m endpoint...`, and that is the environment's Python.
# starting: those of the programs that start other packages' programs, which are in `path`: behind what the caller's PATH has.
{
  lib,
  python3,
  runCommand,
  runtimeShell,
  module,
  name,
  programs,
  starting ? [ ],
  path ? [ ],
}:
let
  environment = python3.withPackages (_: [ module ]);
  behind = lib.concatMapStringsSep ":" (package: "${package}/bin:${package}/sbin") path;
in
runCommand "${name}-${module.version}"
  {
    passthru = { inherit environment module; };
    meta = module.meta // { mainProgram = builtins.head programs; };
  }
  ''
    mkdir -p $out/bin
    for program in ${toString programs}; do
      ln -s ${environment}/bin/$program $out/bin/$program
    done
    for program in ${toString starting}; do
      rm $out/bin/$program
      printf '#!%s\nexport PATH="$PATH:%s"\nexec %s "$@"\n' ${runtimeShell} "${behind}" ${environment}/bin/$program > $out/bin/$program
      chmod +x $out/bin/$program
    done
  ''
