# examples/demo/run.py with everything that it needs: our programs, the official SDK, a broker. It works in `.demo` of the
# folder that it is started in.
{
  erlang,
  module,
  python3,
  python3Packages,
  rabbitmq-server,
  runCommand,
  runtimeShell,
  util-linux,
}:
let
  own = import ./python-packages.nix {
    inherit python3Packages;
    locked = import ./locked.nix ../requirements/peer-sdk.txt // import ./locked.nix ../requirements/agent.txt;
  };
  environment = python3.withPackages (_: [ module own.globus-compute-sdk ]);
in
runCommand "compute-endpoint-demo" { } ''
  mkdir -p $out/bin $out/examples
  cp -r ${../examples/demo} $out/examples/demo
  cat > $out/bin/demo <<EOF
  #!${runtimeShell}
  export PATH="\$PATH:${rabbitmq-server}/bin:${rabbitmq-server}/sbin:${erlang}/bin:${util-linux}/bin"
  export COMPUTE_DEMO_DIRECTORY="\''${COMPUTE_DEMO_DIRECTORY:-\$PWD/.demo}"
  exec ${environment}/bin/python3 $out/examples/demo/run.py "\$@"
  EOF
  chmod +x $out/bin/demo
''
