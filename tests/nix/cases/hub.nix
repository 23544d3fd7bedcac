# A hub with HTTPS at a low port, and a broker that somebody else runs.
{
  services.compute-hub = {
    enable = true;
    openFirewall = true;
    settings.listen = { host = "0.0.0.0"; port = 443; };
    settings.database = "/srv/hub/hub.db";
    settings.broker = {
      amqp_url = "amqps://rabbit.example.org:5671/compute";
      management_url = "https://rabbit.example.org:15671";
      user = "hub";
      password_file = "/run/credentials/compute-hub.service/broker_password";
    };
    brokerPasswordCredential = "hub-broker";
    tls.certificate = "/etc/ssl/certs/hub.pem";
    tls.keyFile = "/etc/ssl/private/hub.key";
    limits.memory_max = "4G";
  };
}
