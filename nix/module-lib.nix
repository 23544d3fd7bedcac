# What both modules do: files that the program checks while the system is built, and units that it renders.
# program: the package with globus-compute-endpoint. check: whether files are checked.
{
  lib,
  pkgs,
  program,
  check ? true,
}:
let
  inherit (builtins) toJSON;
  json = pkgs.formats.json { };

  # A file of ours, as `check-config --kind` names it. One that is not valid fails the build with the program's own words.
  # beside: files that it is looked at together with, by name.
  checkedWith =
    beside: kind: name: file:
    pkgs.runCommand name { nativeBuildInputs = [ program ]; } ''
      cp ${file} ${name}
      ${lib.concatLines (lib.mapAttrsToList (other: path: "cp ${path} ${other}") beside)}
      ${lib.optionalString check "globus-compute-endpoint check-config --alone --kind ${kind} ${name}"}
      cp ${name} $out
    '';
  checked = checkedWith { };
in
{
  inherit checked checkedWith;
  data = json.generate;

  # What is null is not written, and the program's default holds.
  written = lib.filterAttrsRecursive (_: value: value != null);
  fromData = kind: name: data: checked kind name (json.generate name data);

  # A package for `systemd.packages` with one file below lib/systemd/system, rendered from the template that Ansible's roles
  # and `enable-on-boot` render too. kind: endpoint, hub or broker.
  unit =
    kind: file: values:
    pkgs.runCommand "unit-${kind}"
      {
        nativeBuildInputs = [ program ];
        values = toJSON values;
        passAsFile = [ "values" ];
      }
      ''
        mkdir -p "$(dirname "$out/lib/systemd/system/${file}")"
        globus-compute-endpoint _unit-file ${kind} $valuesPath > "$out/lib/systemd/system/${file}"
      '';

  # A drop-in with limits for a slice; a name with a dash at its end is for all slices below.
  sliceLimits =
    slice: limits:
    let
      text = limits: ''
        [Slice]
        ${lib.concatLines (lib.mapAttrsToList (setting: value: "${setting}=${toString value}") (settings limits))}'';
      settings =
        limits:
        lib.filterAttrs (_: value: value != null) {
          MemoryMax = limits.memory_max;
          MemoryHigh = limits.memory_high;
          TasksMax = limits.tasks_max;
          CPUQuota = if limits.cpu_quota == null then null else "${toString limits.cpu_quota}%";
          CPUWeight = limits.cpu_weight;
          IOWeight = limits.io_weight;
        };
      file = pkgs.writeText "limits.conf" (text limits);
    in
    pkgs.runCommand "slice-${slice}" { } ''
      mkdir -p "$out/lib/systemd/system/${slice}.slice.d"
      cp ${file} "$out/lib/systemd/system/${slice}.slice.d/limits.conf"
    '';

  # The service is somewhere else than where it is for everybody.
  serviceVariables =
    { ca, hub }:
    lib.optionalAttrs (hub != null) {
      GLOBUS_SDK_ENVIRONMENT = "local";
      GLOBUS_SDK_SERVICE_URL_AUTH = "${lib.removeSuffix "/" hub}/";
      GLOBUS_SDK_SERVICE_URL_COMPUTE = lib.removeSuffix "/" hub;
    }
    // lib.optionalAttrs (ca != null) { SSL_CERT_FILE = toString ca; };

  # A secret is a path on the host: in the store everybody could read it.
  secretFaults =
    where: what: { file, credential }:
    [
      {
        assertion = file == null || !lib.hasPrefix builtins.storeDir file;
        message = "${where}.${what}File is in the Nix store, which everybody can read: name a file on the host, as text";
      }
      {
        assertion = file == null || credential == null;
        message = "${where} has ${what}File and ${what}Credential: give one of them";
      }
    ];

  secretOptions =
    what: description:
    {
      "${what}File" = lib.mkOption {
        type = lib.types.nullOr lib.types.str;
        default = null;
        example = "/run/secrets/${what}";
        description = "The file on the host, root's with mode 0600, with ${description}. systemd hands it over (LoadCredential).";
      };
      "${what}Credential" = lib.mkOption {
        type = lib.types.nullOr lib.types.str;
        default = null;
        example = "compute-${what}";
        description = "In place of that, the name of an encrypted credential of systemd in `/etc/credstore.encrypted`.";
      };
    };
}
