# Closures as one archive: store/ with every path, `registration` for a host with Nix, `roots` with the names of the packages,
# and `install`, which puts them into a host's store and makes a link to each that keeps them there.
{
  closureInfo,
  runCommand,
  roots,
  version,
}:
let
  closure = closureInfo { rootPaths = builtins.attrValues roots; };
  names = builtins.attrNames roots;
  name = "compute-endpoint-closure-${version}";
in
runCommand name { } ''
  mkdir -p $out ${name}/store
  cp ${closure}/registration ${name}/registration
  ${builtins.concatStringsSep "\n" (map (root: "echo '${root} ${roots.${root}}' >> ${name}/roots") names)}
  cp ${./bundle-install.sh} ${name}/install
  chmod 755 ${name}/install
  xargs -n 50 cp -a -t ${name}/store < ${closure}/store-paths
  tar --sort=name --owner=0 --group=0 --numeric-owner --mtime=@1 -cf - ${name} | gzip -n > $out/${name}.tar.gz
''
