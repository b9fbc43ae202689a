"""The settings that each kind of database table has, in its own file or as `NAME_setting` in main.cf.

Source: ldap_table(5), mysql_table(5), pgsql_table(5), sqlite_table(5), memcache_table(5).
"""

from __future__ import annotations

_SQL = "additional_conditions domain expansion_limit query result_format select_field table where_field"
_SERVER = f"{_SQL} dbname hosts password user"

_LDAP = """
bind bind_dn bind_pw cache cache_expiry cache_size chase_referrals debuglevel dereference domain
expansion_limit leaf_result_attribute query_filter recursion_limit result_attribute result_filter result_format
sasl_authz_id sasl_minssf sasl_mechs sasl_realm scope search_base server_host server_port size_limit
special_result_attribute start_tls terminal_result_attribute timeout tls_ca_cert_dir tls_ca_cert_file tls_cert
tls_cipher_suite tls_key tls_random_file tls_require_cert version
"""
_MEMCACHE = "backup data_size_limit domain flags key_format line_size_limit max_try memcache retry_pause timeout ttl"
_MYSQL = f"""
{_SERVER} charset idle_interval option_file option_group require_result_set retry_interval
tls_CAfile tls_CApath tls_cert_file tls_ciphers tls_key_file tls_verify_cert
"""
_PGSQL = f"{_SERVER} encoding idle_interval retry_interval select_function"
_SQLITE = f"{_SQL} dbpath"

TABLE_PARAMETERS: dict[str, frozenset[str]] = {
    "ldap": frozenset(_LDAP.split()),
    "memcache": frozenset(_MEMCACHE.split()),
    "mysql": frozenset(_MYSQL.split()),
    "pgsql": frozenset(_PGSQL.split()),
    "sqlite": frozenset(_SQLITE.split()),
}
"""Table type -> names of its settings."""
