# services.compute-hub: the site's own web service, and RabbitMQ for it. The units come as those of endpoints do, see
# module-endpoint.nix.
{ packages }:
{ config, lib, pkgs, ... }:
let
  inherit (lib) mkDefault mkIf mkMerge mkOption types;

  cfg = config.services.compute-hub;
  own = packages.${pkgs.stdenv.hostPlatform.system};
  mirrored = import ./options.nix { inherit lib; };
  ours = import ./module-lib.nix {
    inherit lib pkgs;
    program = cfg.checker;
    check = cfg.checkConfig;
  };
  where = "services.compute-hub";
  state = "/var/lib/compute-hub";
  handed = "/run/credentials/compute-hub.service";
  tls = cfg.tls.certificate != null;
  settings = ours.written cfg.settings;
  file = ours.fromData "hub" "hub.yaml" settings;
  embedded = !(settings ? broker);
  database = settings.database or "${settings.directory or state}/hub.db";
  said = limits: lib.filterAttrs (_: value: value != null) limits;

  unit = ours.unit "hub" "compute-hub.service" {
    inherit embedded;
    inherit (cfg) user environment;
    program = "${cfg.package}/bin/compute-hub";
    config = "${file}";
    directory = dirOf database;
    port = (settings.listen or { }).port or 5000;
    broker_password_file = cfg.brokerPasswordFile;
    broker_password_credential = cfg.brokerPasswordCredential;
    tls_key_file = cfg.tls.keyFile;
    tls_key_credential = cfg.tls.keyCredential;
    stop_timeout = cfg.stopTimeout;
    limits = said cfg.limits;
  };
  brokerUnit = ours.unit "broker" "rabbitmq.service.d/50-compute-hub.conf" (said cfg.broker.limits);

  # The administrator that the hub is at the broker. The command reads the password where it asks for one.
  administrator = ''
    set -eu
    ask() { rabbitmqctl --quiet "$@"; }
    password="$CREDENTIALS_DIRECTORY/broker_password"
    ask list_vhosts | grep -qx ${vhost} || ask add_vhost ${vhost}
    if ask list_users | cut -f1 | grep -qx ${cfg.broker.user}; then
      ask change_password ${cfg.broker.user} < "$password" > /dev/null
    else
      ask add_user ${cfg.broker.user} < "$password" > /dev/null
    fi
    ask set_user_tags ${cfg.broker.user} administrator
    ask set_permissions --vhost ${vhost} ${cfg.broker.user} '.*' '.*' '.*'
    # Everybody knows guest's password.
    if ask list_users | cut -f1 | grep -qx guest; then ask delete_user guest; fi
  '';
  inherit (cfg.broker) vhost;
  rabbitmq = config.services.rabbitmq;
in
{
  options.services.compute-hub = {
    enable = lib.mkEnableOption "a hub, the web service for endpoints and clients of a site of its own";

    package = mkOption {
      type = types.package;
      default = own.hub;
      defaultText = lib.literalExpression "the package `hub` of the flake that this module comes from";
      example = lib.literalExpression "pkgs.compute-hub";
      description = "The package with `compute-hub`.";
    };

    checker = mkOption {
      type = types.package;
      default = own.endpoint;
      defaultText = lib.literalExpression "the package `endpoint` of the flake that this module comes from";
      example = lib.literalExpression "pkgs.globus-compute-endpoint";
      description = "The package that checks the settings and renders the unit while the system is built.";
    };

    checkConfig = mkOption {
      type = types.bool;
      default = true;
      example = false;
      description = "Whether `check-config` checks the settings while the system is built.";
    };

    user = mkOption {
      type = types.str;
      default = "compute-hub";
      example = "hub";
      description = "The account that it runs as, made by this module if it is `compute-hub`.";
    };

    settings = mkOption {
      type = types.submodule { freeformType = types.attrsOf types.anything; options = mirrored.hub; };
      default = { };
      example = { listen = { host = "0.0.0.0"; port = 8080; }; };
      description = "The file `hub.yaml`, checked while the system is built. What is null is not written. `broker` follows from the option `broker`, and `listen.tls` from `tls`.";
    };

    brokerPasswordFile = (ours.secretOptions "brokerPassword" "the password of the hub's user at the broker").brokerPasswordFile;
    brokerPasswordCredential = (ours.secretOptions "brokerPassword" "").brokerPasswordCredential;

    tls = {
      certificate = mkOption {
        type = types.nullOr types.str;
        default = null;
        example = "/etc/ssl/certs/hub.pem";
        description = "The file on the host with the certificate for the hub's own HTTPS, and those that lead to the authority's. Without it, the hub speaks plain HTTP, to this host or to a proxy before it.";
      };
      inherit (ours.secretOptions "key" "the certificate's key") keyFile keyCredential;
    };

    broker = {
      enable = lib.mkEnableOption "RabbitMQ on this host for the hub, through `services.rabbitmq`. Without it, and without `settings.broker`, the hub starts one of its own";

      address = mkOption {
        type = types.str;
        default = "127.0.0.1";
        example = "rabbit.example.org";
        description = "Its name or address, as endpoints and clients reach it. One that is not this host's own wants `services.rabbitmq.listenAddress`, certificates and an open port too.";
      };

      vhost = mkOption {
        type = types.strMatching "[A-Za-z0-9_.-]+";
        default = "compute";
        example = "compute";
        description = "The virtual host that the hub uses.";
      };

      user = mkOption {
        type = types.strMatching "[A-Za-z0-9_.-]+";
        default = "compute-hub";
        example = "compute-hub";
        description = "The administrator that the hub is at the broker.";
      };

      limits = mkOption {
        type = types.submodule { options = mirrored.limits; };
        default = { };
        example = { memory_max = "4G"; };
        description = "What the broker may take.";
      };
    };

    environment = mkOption {
      type = types.attrsOf types.str;
      default = { };
      example = { SSL_CERT_FILE = "/etc/ssl/certs/site.pem"; };
      description = "Environment variables of the hub. The unit can be read by all, so no secrets.";
    };

    stopTimeout = mkOption {
      type = types.ints.positive;
      default = 60;
      example = 120;
      description = "How long the hub has to stop before it is killed. Unit: seconds.";
    };

    limits = mkOption {
      type = types.submodule { options = mirrored.limits; };
      default = { };
      example = { memory_max = "8G"; };
      description = "What the hub may take.";
    };

    openFirewall = mkOption {
      type = types.bool;
      default = false;
      example = true;
      description = "Whether the hub's port is opened in the firewall; the broker's is not.";
    };
  };

  config = mkIf cfg.enable (mkMerge [
    {
      assertions = [
        {
          assertion = !embedded -> cfg.brokerPasswordFile != null || cfg.brokerPasswordCredential != null || (settings.broker.password_file or "") != "${handed}/broker_password";
          message = "${where} has a broker, and no brokerPasswordFile or brokerPasswordCredential";
        }
        {
          assertion = cfg.broker.enable -> cfg.brokerPasswordFile != null;
          message = "${where}.broker.enable needs brokerPasswordFile, with which the broker's administrator is made";
        }
        {
          assertion = tls == (cfg.tls.keyFile != null || cfg.tls.keyCredential != null);
          message = "${where}.tls: certificate goes with keyFile or keyCredential, and neither without the other";
        }
        {
          assertion = cfg.user != "root";
          message = "${where}.user must name an account other than root";
        }
      ]
      ++ ours.secretFaults where "brokerPassword" { file = cfg.brokerPasswordFile; credential = cfg.brokerPasswordCredential; }
      ++ ours.secretFaults "${where}.tls" "key" { file = cfg.tls.keyFile; credential = cfg.tls.keyCredential; };

      environment.systemPackages = [ cfg.package ];
      users.users = mkIf (cfg.user == "compute-hub") { compute-hub = { isSystemUser = true; group = "compute-hub"; home = state; }; };
      users.groups = mkIf (cfg.user == "compute-hub") { compute-hub = { }; };

      systemd.packages = [ unit ];
      systemd.services.compute-hub.wantedBy = [ "multi-user.target" ];
      services.compute-hub.settings.directory = mkIf (cfg.settings.broker == null) (mkDefault state);
      networking.firewall.allowedTCPPorts = mkIf cfg.openFirewall [ ((settings.listen or { }).port or 5000) ];
    }

    (mkIf tls { services.compute-hub.settings.listen.tls = { inherit (cfg.tls) certificate; key = "${handed}/tls_key"; }; })

    (mkIf cfg.broker.enable {
      services.compute-hub.settings = {
        database = mkDefault "${state}/hub.db";
        broker = {
          amqp_url = "amqp://${cfg.broker.address}:${toString rabbitmq.port}/${vhost}";
          management_url = "http://127.0.0.1:${toString rabbitmq.managementPlugin.port}";
          user = cfg.broker.user;
          password_file = "${handed}/broker_password";
        };
      };

      services.rabbitmq = {
        enable = true;
        managementPlugin.enable = true;
      };

      systemd.packages = [ brokerUnit ];
      systemd.services.compute-hub-broker = {
        description = "The hub's user and virtual host at its broker";
        wantedBy = [ "multi-user.target" ];
        requires = [ "rabbitmq.service" ];
        after = [ "rabbitmq.service" ];
        path = [ rabbitmq.package pkgs.coreutils pkgs.gnugrep ];
        # The broker's commands know it by a cookie in this directory, which is the broker's own.
        environment.HOME = rabbitmq.dataDir;
        script = administrator;
        serviceConfig = {
          Type = "oneshot";
          RemainAfterExit = true;
          User = "rabbitmq";
          Group = "rabbitmq";
          LoadCredential = "broker_password:${cfg.brokerPasswordFile}";
        };
      };
      # The broker has other names here than with other distributions.
      systemd.services.compute-hub = {
        wants = [ "compute-hub-broker.service" ];
        after = [ "compute-hub-broker.service" "rabbitmq.service" ];
      };
    })
  ]);
}
