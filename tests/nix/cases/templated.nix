# The program's own template, an encrypted credential, a directory of the site's choice; not started at boot.
{
  services.globus-compute-endpoint.endpoints.course = {
    kind = "templated";
    user = "teacher";
    directory = "/srv/endpoints";
    clientId = "11111111-1111-4111-8111-111111111111";
    clientSecretCredential = "course-client";
    running = false;
  };
}
