"""The configuration files of the 2002 tutorial (chapters 1.2, 1.3, 6, 7.8), as printed: blanks to be filled in are {...}.

``lmtpl`` and ``uucpl`` in 1.3 are misprints of the page; they stay, because a file with them has to load.
"""

from __future__ import annotations

MAIN_1_2 = """\
# NOMBRE, DOMINIO y SMARHOST
myhostname = {myhostname}
mydomain = {mydomain}
relay = {relay}

# DIRECCION QUE APARECE EN EL FROM
myorigin = $mydomain

# CONFIGURACION DE TRANSPORTATION LAYER SECURITY (TLS)
smtp_use_tls = yes
smtp_tls_session_cache_database = sdbm:{etc}/smtp_scache
smtp_tls_key_file = {etc}/cert/key.pem
smtp_tls_cert_file = {etc}/cert/cert.pem
smtp_tls_CAfile = {etc}/cert/CertCA.pem
smtpd_use_tls = yes
smtpd_tls_session_cache_database = sdbm:{etc}/smtpd_scache
smtpd_tls_key_file = {etc}/cert/key.pem
smtpd_tls_cert_file = {etc}/cert/cert.pem
smtpd_tls_CAfile = {etc}/cert/CertCA.pem

# CONFIGURACION DE SIMPLE AUTHENTICATION AND SECURITY LAYER (SASL)
broken_sasl_auth_clients = yes
smtpd_sasl_local_domain = {realm}
smtpd_sasl_auth_enable = {auth}
smtpd_sasl_security_options = noanonymous

# TRATAMIENTO DE ALIAS
alias_database = hash:{etc}/aliases
alias_maps = hash:{etc}/aliases

# IDENTIFICACION DE USUARIOS LOCALES
local_recipient_maps = $alias_maps unix:passwd.byname

# ENVIO EN PARALELO A UN MISMO DESTINO
local_destination_concurrency_limit = 2
default_destination_concurrency_limit = 10

# OTROS PARAMETROS DE CONFIGURACION
notify_classes = resource, software, policy
transport_maps = hash:{etc}/transport
disable_vrfy_command = yes
disable_dns_lookups = no
#relayhost = [$relay]
message_size_limit = 10485760
mailbox_size_limit = 0
maximal_queue_lifetime = 5d

# CONTROL DE CORREO ENTRANTE / SALIENTE
mynetworks = 127.0.0.1 192.168.0.0/24
mydestination = $myhostname localhost.$mydomain $mydomain
relay_domains = $mydestination
smtpd_client_restrictions = reject_unknown_client
smtpd_helo_required = yes
smtpd_helo_restrictions =
    reject_invalid_hostname
    reject_unknown_hostname
    reject_non_fqdn_hostname
smtpd_recipient_restrictions =
    permit_sasl_authenticated
    permit_mynetworks
    check_relay_domains
header_checks = regexp:{etc}/header_checks
body_checks = regexp:{etc}/body_checks
content_filter = {filter}

# VERSION
mail_name = Postfix-TLS-SASL/MJ-0.8
smtpd_banner = $myhostname ESMTP $mail_name ($mail_version)
"""

_SERVICES_1_3 = """\
cleanup  unix  n       -       n       -       0       cleanup
#qmgr    fifo  n       -       n       300     1       qmgr
qmgr     fifo  n       -       n       300     1       nqmgr
tlsmgr   fifo  -       -       n       300     1       tlsmgr
rewrite  unix  -       -       n       -       -       trivial-rewrite
bounce   unix  -       -       n       -       0       bounce
defer    unix  -       -       n       -       0       bounce
flush    unix  n       -       n       1000?   0       flush
smtp     unix  -       -       n       -       -       smtp
showq    unix  n       -       n       -       -       showq
error    unix  -       -       n       -       -       error
local    unix  -       n       n       -       -       local
virtual    unix -      n      n      -      -      virtual
lmtpl      unix -      -      n      -      -      lmtpl
#
#
cyrus      unix -      n      n      -      -      pipe
    flags=R user=cyrus argv=/cyrus/bin/deliver -e -m ${extension} ${user}
uucpl      unix -      n      n      -      -      pipe
    flags=Fqhu user=uucpl argv=uux -r -n -z -a$sender - $nexthop!rmail ($recipient)
ifmail     unix -      n      n      -      -      pipe
    flags=F user=ftn argv=/usr/lib/ifmail/ifmail -r $nexthop ($recipient)
bsmtpl     unix -      n      n      -      -      pipe
    flags=Fq. user=foo argv=/usr/local/sbin/bsmtpl -f $sender $nexthop $recipient
"""

_HEAD = """\
#
# =====
# service type private unpriv chroot wakeup maxproc command + args
#          (yes)   (yes)   (yes)   (never) (50)
# =====
"""

MASTER_1_3 = (
    _HEAD
    + """\
smtp      inet  n       -       n       -       -       smtpd
pickup   fifo  n       -       n       60      1       pickup
"""
    + _SERVICES_1_3
)

MASTER_6_1 = (
    _HEAD
    + """\
8025      inet n      -       n       -       -       smtpd
        -o smtpd_sasl_auth_enable=yes
smtp      inet n      -       n       -       -       smtpd
pickup   fifo n      -       n       60      1       pickup
        -o content_filter=
"""
    + _SERVICES_1_3
    + """\
filtro    unix -      n       n       -       -       pipe
        flags=Rq user=seguro argv={etc}/filtro -f ${sender} -- ${recipient}
"""
)

MASTER_6_2 = (
    _HEAD
    + """\
localhost:10025 inet      n       -       n       -       -       smtpd
              -o content_filter=
smtp          inet      n       -       n       -       -       smtpd
pickup       fifo      n       -       n       60      1       pickup
"""
    + _SERVICES_1_3
    + """\
filtro    unix -       n       n       -       10      pipe
          flags=q user=vscan argv={etc}/amavis ${sender} ${recipient}
"""
)

MASTER_7_8 = """\
#
# =====
# service type  private unpriv  chroot  wakeup  maxproc command + args
#               (yes)    (yes)   (yes)   (never) (50)
# =====
#
#
smtp      inet  n       -       -       -       -       smtpd
pickup   fifo  n       -       -       60      1       pickup
cleanup  unix  n       -       -       -       0       cleanup
#qmgr     fifo  n       -       -       300     1       qmgr
qmgr      fifo  n       -       -       300     1       nqmgr
tlsmgr    fifo  -       -       -       300     1       tlsmgr
rewrite   unix  -       -       -       -       -       trivial-rewrite
bounce    unix  -       -       -       -       0       bounce
defer     unix  -       -       -       -       0       bounce
flush     unix  n       -       -       1000?   0       flush
smtp      unix  -       -       -       -       -       smtp
showq     unix  n       -       -       -       -       showq
error     unix  -       -       -       -       -       error
local     unix  -       n       n       -       -       local
virtual   unix  -       n       n       -       -       virtual
lmtp      unix  -       -       n       -       -       lmtp
#
#
cyrus     unix  -       n       n       -       -       pipe
         flags=R user=cyrus argv=/cyrus/bin/deliver -e -m ${extension} ${user}
uucp      unix  -       n       n       -       -       pipe
         flags=Fqhu user=uucp argv=uux -r -n -z -a$sender - $nexthop!rmail ($recipient)
ifmail    unix  -       n       n       -       -       pipe
         flags=F user=ftn argv=/usr/lib/ifmail/ifmail -r $nexthop ($recipient)
bsmtp     unix  -       n       n       -       -       pipe
         flags=Fq. user=foo argv=/usr/local/sbin/bsmtp -f $sender $nexthop $recipient
virus     unix  -       n       n       -       -       pipe
         flags=Rq user=postdrop argv={etc}/filtro -f ${sender} -- ${recipient}
"""
HEADER_CHECKS = """\
#
# Headers Checks
#
# Virus: W32.SirCam [20/SEP/01]
/^date:.*$/i REJECT
/^Content-Disposition: Multipart message/ REJECT
#
# Virus Nimda (attach readme.exe) [20/SEP/01]
/^X-Unsent: 1/ REJECT
#
# Virus Badtrans [30/NOV/01]
/^From: ".*" <_/ REJECT
#
# Virus W32.Myparty.B@mm [29/ENE/02]
/^Subject: new photos from my party!/ REJECT
#
#Virus W32/Frethem.K/J [15/JUL/02]
/^Subject: Re: Your password!/ REJECT
#
"""
BODY_CHECKS = """\
#
# Body Checks
#
/Accept Credit Cards/ REJECT
/Nude Celebrities/ REJECT
/PRODUCT or SERVICE/ REJECT
/GUARANTEED!/ REJECT
/Amateur Girls/ REJECT
/FREE MEMBERSHIP/ REJECT
/bizinfo/ REJECT
"""
