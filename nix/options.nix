# Made from schemas/ by `make reference`; change the schemas instead.
# Options that mirror a schema: `settings` of an endpoint and of the hub, and parts of the site document.
{ lib }:
let
  inherit (lib) mkOption types;
in
{
  endpoint = {
    display_name = mkOption {
      type = types.nullOr types.str;
      default = null;
      example = "Cluster: debug queue";
      description = "The endpoint's name as people see it in lists; without it, the name of its directory.";
    };
    debug = mkOption {
      type = types.nullOr types.bool;
      default = null;
      example = true;
      description = "Write debug-level log records. `--debug` on the command line does the same. Default: `false`.";
    };
    high_assurance = mkOption {
      type = types.nullOr types.bool;
      default = null;
      example = true;
      description = "Follow the rules for high-assurance data. Needs a subscription. Default: `false`.";
    };
    amqp_port = mkOption {
      type = types.nullOr (types.ints.between 1 65535);
      default = null;
      example = 443;
      description = "The port for connections to the broker, in place of the one that the service names. The public service answers on 443, 5671 and 5672. Unit: port number.";
    };
    heartbeat_period = mkOption {
      type = types.nullOr types.number;
      default = null;
      example = 60;
      description = "Seconds between two heartbeats; less than 5 counts as 5. Unit: seconds. Default: `30`.";
    };
    environment = mkOption {
      type = types.nullOr types.str;
      default = null;
      example = "local";
      description = "The service environment, such as `local`; without it, the public service.";
    };
    local_compute_services = mkOption {
      type = types.nullOr types.bool;
      default = null;
      example = true;
      description = "Use a service on this machine instead of the public one. Default: `false`.";
    };
    allowed_functions = mkOption {
      type = types.nullOr (types.listOf types.str);
      default = null;
      example = [ "6c0c8f2e-0d50-4a5c-9d3b-0f5f6f6c7a11" ];
      description = "The ids of the only functions that may run; without it, every function may.";
    };
    authentication_policy = mkOption {
      type = types.nullOr types.str;
      default = null;
      example = "22f0c1a4-6b0e-4f43-9d52-1e2d3c4b5a69";
      description = "The id of the authentication policy that users must meet.";
    };
    subscription_id = mkOption {
      type = types.nullOr types.str;
      default = null;
      example = "9a1b2c3d-4e5f-4a6b-8c7d-0e1f2a3b4c5d";
      description = "The id of the subscription that the endpoint belongs to.";
    };
    admins = mkOption {
      type = types.nullOr (types.listOf types.str);
      default = null;
      example = [ "4b116d3c-1703-4f8f-9f6f-39921e5864df" ];
      description = "The ids of identities that administer the endpoint beside its owner. Needs a subscription.";
    };
    log_format = mkOption {
      type = types.nullOr (types.enum [ "text" "json" ]);
      default = null;
      example = "json";
      description = "How log files are written: `text` for readable lines, `json` for one JSON object a line. Default: `text`.";
    };
    public = mkOption {
      type = types.nullOr types.bool;
      default = null;
      example = true;
      description = "Show the endpoint to everybody in the web interface. This is about being seen, not about who may use it. Default: `false`.";
    };
    audit_log_path = mkOption {
      type = types.nullOr types.str;
      default = null;
      example = "/var/log/compute/audit.log";
      description = "The file for audit records of an endpoint that only its owner uses. An endpoint of several users has the one that `audit_log` in its policy names, and does not start where only this one is set.";
    };
    mu_child_ep_grace_period_s = mkOption {
      type = types.nullOr types.number;
      default = null;
      example = 60;
      description = "Seconds for which a start request for a user endpoint that already runs is remembered, in case that one is just stopping. Unit: seconds. Default: `30.0`.";
    };
    max_blocks_per_user_endpoint = mkOption {
      type = types.nullOr types.ints.positive;
      default = null;
      example = 20;
      description = "The most blocks (batch jobs) that one user endpoint may have at the same time, whatever a template or a user's options say; without it, as many as those say. Unit: blocks.";
    };
    max_block_requests_per_minute = mkOption {
      type = types.nullOr types.ints.positive;
      default = null;
      example = 10;
      description = "How many blocks one user endpoint may ask its batch system for in a minute; so many may come at once. Unit: blocks per minute. Default: `60`.";
    };
    email = mkOption {
      type = types.nullOr types.str;
      default = null;
      example = "compute-admin@example.org";
      description = "The address at which people reach the endpoint's administrators.";
    };
    force_mu_allow_same_user = mkOption {
      type = types.nullOr types.bool;
      default = null;
      example = true;
      description = "Allow a manager with privileges to start user endpoints for its own user. Only for tests of a site. Default: `false`.";
    };
  };

  hub = {
    listen = mkOption {
      type = types.nullOr (types.submodule { freeformType = types.attrsOf types.anything; options = {
        host = mkOption {
          type = types.nullOr types.str;
          default = null;
          example = "0.0.0.0";
          description = "The address to listen at, or a name of it. Default: `127.0.0.1`.";
        };
        port = mkOption {
          type = types.nullOr (types.ints.between 0 65535);
          default = null;
          example = 8080;
          description = "The port to listen at; 0 takes a free one. Unit: port number. Default: `5000`.";
        };
        tls = mkOption {
          type = types.nullOr (types.submodule { freeformType = types.attrsOf types.anything; options = {
            certificate = mkOption {
              type = types.nullOr types.str;
              default = null;
              example = "/etc/compute-hub/hub.pem";
              description = "The certificate (PEM), with those between it and its authority behind it in the file. It is read when the hub starts.";
            };
            key = mkOption {
              type = types.nullOr types.str;
              default = null;
              example = "/etc/compute-hub/hub.key";
              description = "The certificate's private key (PEM, without a password), which the hub's account must be able to read.";
            };
          }; });
          default = null;
          example = { certificate = "/etc/compute-hub/hub.pem"; key = "/etc/compute-hub/hub.key"; };
          description = "The files for HTTPS. Without it, the web service speaks plain HTTP.";
        };
      }; });
      default = null;
      example = { host = "0.0.0.0"; port = 8080; };
      description = "The address at which the web service listens.";
    };
    directory = mkOption {
      type = types.nullOr types.str;
      default = null;
      example = "/var/lib/compute-hub";
      description = "The directory for everything: the database, the log, and a RabbitMQ of the hub's own, which is started and stopped with it. Without it and without `broker`, the hub uses `.compute_hub` in the home directory.";
    };
    database = mkOption {
      type = types.nullOr types.str;
      default = null;
      example = "/var/lib/compute-hub/hub.db";
      description = "The file of the database, with a lock beside it. Without it, `hub.db` in `directory`; with `broker` it must be given.";
    };
    broker = mkOption {
      type = types.nullOr (types.submodule { freeformType = types.attrsOf types.anything; options = {
        amqp_url = mkOption {
          type = types.nullOr types.str;
          default = null;
          example = "amqp://rabbit.example.org:5672/compute";
          description = "Its address, as endpoints and clients reach it, with the virtual host as the path (`compute` without one). User and password don't belong here.";
        };
        management_url = mkOption {
          type = types.nullOr types.str;
          default = null;
          example = "http://rabbit.example.org:15672";
          description = "The address of its management API, as the hub reaches it.";
        };
        user = mkOption {
          type = types.nullOr types.str;
          default = null;
          example = "hub";
          description = "A user of it with the tag `administrator`.";
        };
        password_file = mkOption {
          type = types.nullOr types.str;
          default = null;
          example = "/etc/compute-hub/broker-password";
          description = "The file that has the user's password, and nothing else.";
        };
      }; });
      default = null;
      example = { amqp_url = "amqp://rabbit.example.org:5672/compute"; management_url = "http://rabbit.example.org:15672"; user = "hub"; password_file = "/etc/compute-hub/broker-password"; };
      description = "A RabbitMQ that runs already, with its management plugin. Without it, the hub starts one of its own in `directory`.";
    };
    log_file = mkOption {
      type = types.nullOr types.str;
      default = null;
      example = "/var/log/compute-hub/hub.log";
      description = "The log file. Without it, `hub.log` in `directory`; with `broker`, the hub logs to standard error.";
    };
    log_format = mkOption {
      type = types.nullOr (types.enum [ "text" "json" ]);
      default = null;
      example = "json";
      description = "How log lines are written: `text` for readable lines, `json` for one JSON object a line. Default: `text`.";
    };
    debug = mkOption {
      type = types.nullOr types.bool;
      default = null;
      example = true;
      description = "Write debug-level log records. Default: `false`.";
    };
    times = mkOption {
      type = types.nullOr (types.submodule { freeformType = types.attrsOf types.anything; options = {
        start_wait = mkOption {
          type = types.nullOr types.number;
          default = null;
          example = 30;
          description = "How long a submission waits for the first heartbeat of the user endpoint that it needs. It stays under the 60 seconds after which the SDK hangs up. Unit: seconds. Default: `45`.";
        };
        offline_wait = mkOption {
          type = types.nullOr types.number;
          default = null;
          example = 15;
          description = "How long a submission waits for a sign of life of an endpoint that seems to be away. Unit: seconds. Default: `8`.";
        };
        refresh_start = mkOption {
          type = types.nullOr types.number;
          default = null;
          example = 30;
          description = "A start command to a user endpoint that runs already is repeated at most this often. Unit: seconds. Default: `10`.";
        };
        revive_every = mkOption {
          type = types.nullOr types.number;
          default = null;
          example = 15;
          description = "How often the hub looks for user endpoints that have tasks and have ended. It asks for each of them again, less and less often, and six times at the most until one of its tasks has a result. Unit: seconds. Default: `5`.";
        };
        command_wait = mkOption {
          type = types.nullOr types.number;
          default = null;
          example = 40;
          description = "How long to wait until the broker confirms a command. Unit: seconds. Default: `20`.";
        };
        command_expiry = mkOption {
          type = types.nullOr (types.ints.between 1 180);
          default = null;
          example = 60;
          description = "A command that no endpoint has taken after this time is dropped. Endpoints refuse commands that are older than 180 seconds. Unit: seconds. Default: `180`.";
        };
        confirm_wait = mkOption {
          type = types.nullOr types.number;
          default = null;
          example = 20;
          description = "How long to wait until the broker confirms tasks. They are stored already, and are sent again later. Unit: seconds. Default: `10`.";
        };
        missed_heartbeats = mkOption {
          type = types.nullOr types.number;
          default = null;
          example = 3;
          description = "So many heartbeats may be missing before an endpoint counts as offline. Unit: heartbeats. Default: `2`.";
        };
        heartbeat_slack = mkOption {
          type = types.nullOr types.number;
          default = null;
          example = 20;
          description = "So much later than that a heartbeat may come. Unit: seconds. Default: `10`.";
        };
        lock = mkOption {
          type = types.nullOr types.number;
          default = null;
          example = 120;
          description = "How long an endpoint that was stopped through the service may not register again. Unit: seconds. Default: `60`.";
        };
        keep_tasks = mkOption {
          type = types.nullOr types.number;
          default = null;
          example = 604800;
          description = "How long results are kept that nobody deletes. A task that nobody runs fails after the same time. Unit: seconds. Default: `1209600`.";
        };
        keep_user_endpoints = mkOption {
          type = types.nullOr types.number;
          default = null;
          example = 5184000;
          description = "How long queues and broker user of a user endpoint are kept that is not used any more. Unit: seconds. Default: `2592000`.";
        };
        tidy_every = mkOption {
          type = types.nullOr types.number;
          default = null;
          example = 3600;
          description = "How often the hub looks for what is too old. Unit: seconds. Default: `21600`.";
        };
      }; });
      default = null;
      example = { start_wait = 30; keep_tasks = 604800; };
      description = "How long the hub waits, and how long it keeps things.";
    };
    logins = mkOption {
      type = types.nullOr (types.submodule { freeformType = types.attrsOf types.anything; options = {
        code_lifetime = mkOption {
          type = types.nullOr types.number;
          default = null;
          example = 300;
          description = "How long a code is good that a person takes from the login page to a program. Unit: seconds. Default: `600`.";
        };
        token_lifetime = mkOption {
          type = types.nullOr types.int;
          default = null;
          example = 43200;
          description = "How long an access token is good. Unit: seconds. Default: `172800`.";
        };
        refresh_lifetime = mkOption {
          type = types.nullOr types.number;
          default = null;
          example = 2592000;
          description = "How long a refresh token is good that is not used. Unit: seconds. Default: `7776000`.";
        };
        refresh_overlap = mkOption {
          type = types.nullOr types.number;
          default = null;
          example = 43200;
          description = "How long a refresh token stays good after its first use. Programs that share a file of tokens refresh the same one, each when its access token ends. Unit: seconds. Default: `172800`.";
        };
      }; });
      default = null;
      example = { token_lifetime = 43200; };
      description = "How long codes and tokens are good.";
    };
    limits = mkOption {
      type = types.nullOr (types.submodule { freeformType = types.attrsOf types.anything; options = {
        max_payload = mkOption {
          type = types.nullOr (types.ints.between 1 104857600);
          default = null;
          example = 20971520;
          description = "The largest packed arguments of one task. An existing broker must take messages that are a little larger. Unit: bytes. Default: `10485760`.";
        };
        max_function = mkOption {
          type = types.nullOr (types.ints.between 1 104857600);
          default = null;
          example = 5242880;
          description = "The largest packed function. Unit: bytes. Default: `10485760`.";
        };
        max_body = mkOption {
          type = types.nullOr types.ints.positive;
          default = null;
          example = 134217728;
          description = "The largest request: a batch of many tasks. It has to hold at least one task or function of the largest size. Unit: bytes. Default: `67108864`.";
        };
        max_tasks = mkOption {
          type = types.nullOr types.ints.positive;
          default = null;
          example = 1000;
          description = "The most tasks in one submission. Unit: tasks. Default: `10000`.";
        };
        prefetch = mkOption {
          type = types.nullOr (types.ints.between 1 65535);
          default = null;
          example = 1000;
          description = "So many results and heartbeats may wait for the database at once; the others stay with the broker. Unit: messages. Default: `500`.";
        };
      }; });
      default = null;
      example = { max_tasks = 1000; };
      description = "The most that the hub takes at once.";
    };
  };

  policy = {
    minimum_uid = mkOption {
      type = types.nullOr types.ints.positive;
      default = null;
      example = 5000;
      description = "The smallest user id that may have a user endpoint. Without it, `UID_MIN` of `/etc/login.defs`, else 1000. Unit: user id.";
    };
    forbidden_users = mkOption {
      type = types.nullOr (types.listOf types.str);
      default = null;
      example = [ "guest" ];
      description = "Users who may have no user endpoint.";
    };
    forbidden_groups = mkOption {
      type = types.nullOr (types.listOf types.str);
      default = null;
      example = [ "suspended" ];
      description = "Whoever is in one of these groups may have no user endpoint.";
    };
    required_groups = mkOption {
      type = types.nullOr (types.listOf types.str);
      default = null;
      example = [ "compute-users" ];
      description = "Only who is in one of these groups may have a user endpoint. Without any, membership is not asked for.";
    };
    shells = mkOption {
      type = types.nullOr (types.listOf types.str);
      default = null;
      example = [ "/bin/bash" "/bin/zsh" ];
      description = "The login shells that are allowed. Without it, those in `/etc/shells`; an empty list allows every one.";
    };
    max_user_endpoints = mkOption {
      type = types.nullOr (types.ints.between 1 4000);
      default = null;
      example = 200;
      description = "How many user endpoints there may be at a time. Unit: user endpoints. Default: `1000`.";
    };
    max_user_endpoints_per_user = mkOption {
      type = types.nullOr types.ints.positive;
      default = null;
      example = 5;
      description = "How many of them may be one user's. Unit: user endpoints. Default: `50`.";
    };
    starts_per_minute_per_user = mkOption {
      type = types.nullOr types.ints.positive;
      default = null;
      example = 10;
      description = "How many user endpoints may be started for one user in any minute. Unit: starts per minute. Default: `60`.";
    };
    no_new_privileges = mkOption {
      type = types.nullOr types.bool;
      default = null;
      example = true;
      description = "Whether programs that a user endpoint starts get no rights from their files: setuid programs, such as those of some batch systems, then have no effect. Default: `false`.";
    };
    drop_bounding_set = mkOption {
      type = types.nullOr types.bool;
      default = null;
      example = true;
      description = "Whether no program that a user endpoint starts can ever have a capability. Default: `false`.";
    };
    own_slices = mkOption {
      type = types.nullOr types.bool;
      default = null;
      example = true;
      description = "Whether the user endpoints of each user are in a slice of this endpoint, `gce-NAME-UID.slice` (NAME with `_` for what is no letter, digit, dot or `_`), instead of the user's own, `user-UID.slice`: for limits that hold for what this endpoint runs, and not for the users' other sessions. Default: `false`.";
    };
    runtime_directory = mkOption {
      type = types.nullOr types.str;
      default = null;
      example = "/run/compute";
      description = "Where the state of running user endpoints is kept, for the monitor that comes next; best on a file system that is empty after a reboot. Default: `/run/globus-compute-endpoint`.";
    };
    audit_log = mkOption {
      type = types.nullOr types.str;
      default = null;
      example = "/var/log/globus-compute-endpoint/audit.log";
      description = "The file for audit lines: who asked for what, what was allowed, each session and each task.";
    };
    audit_required = mkOption {
      type = types.nullOr types.bool;
      default = null;
      example = true;
      description = "Whether nothing is started while the audit log can't be written. Default: `false`.";
    };
    audit_format = mkOption {
      type = types.nullOr (types.enum [ "json" "official" ]);
      default = null;
      example = "official";
      description = "The form of the audit lines: JSON with a chain of hashes, or the text that the official endpoint writes. Default: `json`.";
    };
    end_s = mkOption {
      type = types.nullOr (types.ints.between 0 3600);
      default = null;
      example = 60;
      description = "How long processes that a user endpoint leaves behind may run on after its end, in seconds; then they are asked to end, and ended soon after. Unit: seconds. Default: `10`.";
    };
  };

  limits = {
    memory_max = mkOption {
      type = types.nullOr (types.oneOf [ types.int (types.strMatching "([1-9][0-9]*[KMGT]?|[1-9][0-9]?%|100%)") ]);
      default = null;
      example = "16G";
      description = "The most memory: bytes, text such as `16G` (K, M, G and T stand for 1024 and its powers), or `50%` of the host's. Who needs more is killed. Unit: bytes.";
    };
    memory_high = mkOption {
      type = types.nullOr (types.oneOf [ types.int (types.strMatching "([1-9][0-9]*[KMGT]?|[1-9][0-9]?%|100%)") ]);
      default = null;
      example = "12G";
      description = "From here on memory is taken back and the processes are slowed down; in the same forms. Unit: bytes.";
    };
    tasks_max = mkOption {
      type = types.nullOr types.ints.positive;
      default = null;
      example = 4096;
      description = "The most processes and threads together. Unit: processes and threads.";
    };
    cpu_quota = mkOption {
      type = types.nullOr types.ints.positive;
      default = null;
      example = 400;
      description = "The most processor time, in percent of one core: 200 is two cores. Unit: percent of one core.";
    };
    cpu_weight = mkOption {
      type = types.nullOr (types.ints.between 1 10000);
      default = null;
      example = 50;
      description = "The share of processor time where there is not enough for all; 100 is what everything else has. Unit: weight.";
    };
    io_weight = mkOption {
      type = types.nullOr (types.ints.between 1 10000);
      default = null;
      example = 50;
      description = "The share of input and output, in the same way. Unit: weight.";
    };
  };

  unit = {
    restart_delay = mkOption {
      type = types.ints.positive;
      default = 30;
      example = 10;
      description = "How long to wait before a service that failed is started again. Unit: seconds. Default: `30`.";
    };
    stop_timeout = mkOption {
      type = types.ints.positive;
      default = 90;
      example = 120;
      description = "How long the endpoint has to stop before it is killed. Unit: seconds. Default: `90`.";
    };
    environment = mkOption {
      type = types.attrsOf types.str;
      default = { };
      example = { HTTPS_PROXY = "http://proxy.example.org:3128"; };
      description = "Environment variables of the endpoint itself. The unit file is readable for all, so no secrets.";
    };
  };

  pam = {
    service = mkOption {
      type = types.strMatching "[A-Za-z0-9_][A-Za-z0-9_.-]*";
      default = "globus-compute-endpoint";
      example = "compute-endpoint-cluster";
      description = "The name of the PAM service, a file in `/etc/pam.d`. Default: `globus-compute-endpoint`.";
    };
    stack = mkOption {
      type = types.nullOr (types.listOf types.str);
      default = null;
      example = [ "account required pam_unix.so" "session required pam_limits.so" ];
      description = "The lines of that file. Without it, the service `globus-compute-endpoint` gets lines of its own; any other must be one that the host has already, and stays as it is.";
    };
    existing = mkOption {
      type = types.bool;
      default = false;
      example = true;
      description = "Somebody else puts the file of the service on the hosts; only whether it is there is looked at. Default: `false`.";
    };
  };
}
