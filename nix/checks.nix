# What `nix flake check` builds: the package, and the package at work on the schemas' examples.
{ pkgs, packages }:
{
  inherit (packages) endpoint;

  examples = pkgs.runCommand "examples" { nativeBuildInputs = [ packages.endpoint ]; } ''
    cd ${../schemas/examples}
    for directory in valid/endpoint-directory/*; do
      globus-compute-endpoint check-config $directory
    done
    for kind in endpoint user user-environment identity-mapping hub site; do
      # Examples of endpoints name files of the hosts that they are for; those of sites name files beside them.
      globus-compute-endpoint check-config $([ $kind = site ] || echo --alone) --kind $kind valid/$kind/*.yaml
      for file in invalid/$kind/*.yaml; do
        status=0
        globus-compute-endpoint check-config --kind $kind $file 2>/dev/null || status=$?
        if [ $status != 78 ]; then
          echo "$file is not valid, and check-config left with status $status" >&2
          exit 1
        fi
      done
    done
    touch $out
  '';
}
