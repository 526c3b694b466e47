import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { mkdirSync, mkdtempSync, rmSync, truncateSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import test, { after } from 'node:test'

import { UsageError } from '../src/core/errors.js'
import { readHttpConfigFile } from '../src/io/http-config.js'
import { createAuthority } from './helpers/certificates.js'

const folder = mkdtempSync(join(tmpdir(), 'meshfever-test-'))
after(() => rmSync(folder, { recursive: true, force: true }))
const authority = createAuthority(folder, 'ca')
const client = authority.issue('client')
authority.issue('other')
writeFileSync(join(folder, 'password'), 'hunter2')
writeFileSync(join(folder, 'empty'), ' \n')
writeFileSync(join(folder, 'two-lines'), 'hunter2\nhunter2\n')
writeFileSync(join(folder, 'odd-token'), 'hunter2\u0007')
writeFileSync(join(folder, 'colon'), 'hunter2:x')
writeFileSync(join(folder, 'garbage.pem'), '-----BEGIN CERTIFICATE-----\nhunter2\n-----END CERTIFICATE-----\n')
writeFileSync(join(folder, 'huge'), 'x')
truncateSync(join(folder, 'huge'), 2 ** 20 + 1)
mkdirSync(join(folder, 'folder'))
spawnSync('mkfifo', [join(folder, 'pipe')])
spawnSync('openssl', [
  'ec',
  '-in',
  client.keyFile,
  '-aes256',
  '-passout',
  'pass:hunter2',
  '-out',
  join(folder, 'locked.key'),
])

const path = join(folder, 'http.yml')
const WHAT = `--prometheus-http-config-file: ${path}`

function read(config: string, url = 'https://p:9090'): ReturnType<typeof readHttpConfigFile> {
  writeFileSync(path, config)
  return readHttpConfigFile(path, { flag: '--prometheus-http-config-file', urls: [url] })
}

const BASIC = 'basic_auth: {username: a, password_file: password'
const ONLY_FILES = 'must not stand in the file'
const NOT_ONE = ', line 1: http_headers.X must have one value, in values or in files'

for (const { config, message, url } of [
  // What is not there, or not understood.
  { config: '', message: ': expected one YAML document' },
  { config: 'tls_config: {}\n---\ntls_config: {}', message: ': expected one YAML document' },
  { config: 'hunter2', message: ', line 1: the document must be a mapping, got a text' },
  { config: '12345678', message: ', line 1: the document must be a mapping, got a number' },
  { config: 'a: [hunter2', message: ', line 1: not YAML (BAD_INDENT)' },
  { config: 'tls_config: {}\ntls_config: {}', message: ', line 2: not YAML (DUPLICATE_KEY)' },
  { config: 'a: |hunter2\n b', message: ', line 1: not YAML (UNEXPECTED_TOKEN)' },
  { config: 'authorization: *hunter2', message: ': not YAML (an alias in it cannot be resolved)' },
  { config: '- hunter2', message: ', line 1: the document must be a mapping, got an array of 1' },
  { config: '? [hunter2]\n: x', message: /^, line 1: \? must be absent \(.*\), got a text$/ },
  {
    config: 'tls_config: {}\nbasic-auth: {password: hunter2}',
    message:
      ', line 2: basic-auth must be absent (the keys here are basic_auth, authorization, tls_config, http_headers, follow_redirects, enable_http2), got an object',
  },
  {
    config: 'basic_auth:\n  username: a\n  passwrod: hunter2',
    message: /^, line 3: basic_auth\.passwrod must be absent \(.*\), got a text$/,
  },
  { config: '{__proto__: {x: 1}}', message: /^, line 1: __proto__ must be absent/ },
  // Secrets in the file.
  {
    config: 'basic_auth:\n  password: hunter2',
    message: `, line 2: basic_auth.password ${ONLY_FILES}: use password_file`,
  },
  {
    config: 'authorization:\n  credentials: hunter2',
    message: `, line 2: authorization.credentials ${ONLY_FILES}: use credentials_file`,
  },
  {
    config: 'bearer_token: hunter2',
    message: `, line 1: bearer_token ${ONLY_FILES}: use authorization with credentials_file`,
  },
  { config: 'tls_config:\n  key: hunter2', message: `, line 2: tls_config.key ${ONLY_FILES}: use key_file` },
  { config: 'tls_config:\n  cert: hunter2', message: `, line 2: tls_config.cert ${ONLY_FILES}: use cert_file` },
  { config: 'tls_config:\n  ca: hunter2', message: `, line 2: tls_config.ca ${ONLY_FILES}: use ca_file` },
  // What the format has and this client has not.
  { config: 'proxy_url: http://u:hunter2@p', message: ', line 1: proxy_url is not supported: no proxy is used' },
  { config: 'proxy_from_environment: true', message: /^, line 1: proxy_from_environment is not supported/ },
  { config: 'no_proxy: x', message: /^, line 1: no_proxy is not supported/ },
  { config: 'proxy_connect_header: {}', message: /^, line 1: proxy_connect_header is not supported/ },
  {
    config: 'oauth2: {client_secret: hunter2}',
    message: ', line 1: oauth2 is not supported: use authorization with credentials_file',
  },
  { config: 'http_headers: hunter2', message: ', line 1: http_headers must be a mapping, got a text' },
  {
    config: 'http_headers: {X: {secrets: [hunter2]}}',
    message: `, line 1: http_headers.X.secrets ${ONLY_FILES}: use files`,
  },
  { config: 'http_headers: {"a b": {values: [x]}}', message: ', line 1: http_headers.? is no name of an HTTP header' },
  { config: 'http_headers: {host: {values: [x]}}', message: ', line 1: http_headers.host is not to be set here' },
  { config: 'http_headers: {X: {}}', message: NOT_ONE },
  { config: 'http_headers: {X: {values: [a, b]}}', message: NOT_ONE },
  { config: 'http_headers: {X: {values: [a], files: [password]}}', message: NOT_ONE },
  {
    config: 'http_headers:\n  X:\n    values: ["hunter2\\n"]',
    message: ', line 2: http_headers.X has a value that is not fit for an HTTP header',
  },
  { config: 'http_headers: {X: {files: [empty]}}', message: ', line 1: http_headers.X.files[0] names an empty file' },
  { config: 'bearer_token_file: password', message: /^, line 1: bearer_token_file is the old form of authorization/ },
  {
    config: 'follow_redirects: true',
    message:
      ', line 1: follow_redirects must be false or left out: redirects are not followed, with or without credentials',
  },
  { config: 'enable_http2: true', message: ', line 1: enable_http2 must be false or left out: HTTP/1.1 is spoken' },
  { config: 'basic_auth: {password_ref: x}', message: /password_ref is not supported: there is no secret manager$/ },
  { config: 'authorization: {credentials_ref: x}', message: /credentials_ref is not supported/ },
  { config: 'tls_config: {key_ref: x}', message: /tls_config\.key_ref is not supported/ },
  // Basic authentication.
  { config: 'basic_auth:', message: ', line 1: basic_auth must be a mapping, got null' },
  { config: 'basic_auth: {}', message: ', line 1: basic_auth must have either username or username_file' },
  { config: `${BASIC}, username_file: password}`, message: /must have either username or username_file$/ },
  { config: 'basic_auth: {username: a}', message: ', line 1: basic_auth.password_file must be a text, got nothing' },
  {
    config: 'basic_auth: {username: "a:b", password_file: password}',
    message: /basic_auth\.username must hold no colon$/,
  },
  {
    config: 'basic_auth: {username_file: colon, password_file: password}',
    message: /username_file must hold no colon$/,
  },
  {
    config: `${BASIC}}\nauthorization: {credentials_file: password}`,
    message: ', line 2: authorization cannot be used together with basic_auth',
  },
  { config: 'basic_auth: {username: a, password_file: empty}', message: /password_file names an empty file$/ },
  { config: 'basic_auth: {username: a, password_file: two-lines}', message: /names a file with more than one line$/ },
  {
    config: 'basic_auth: {username: a, password_file: nowhere}',
    message: `, line 1: basic_auth.password_file names ${join(folder, 'nowhere')}: no such file`,
  },
  {
    config: 'basic_auth: {username: a, password_file: folder}',
    message: `, line 1: basic_auth.password_file names ${join(folder, 'folder')}: not a regular file`,
  },
  { config: 'basic_auth: {username: a, password_file: pipe}', message: /pipe: not a regular file$/ },
  {
    config: 'basic_auth: {username: a, password_file: huge}',
    message: /huge: expected at most 1048576 bytes, got 1048577$/,
  },
  // Tokens.
  { config: 'authorization: {}', message: ', line 1: authorization.credentials_file must be a text, got nothing' },
  {
    config: 'authorization: {type: basic, credentials_file: password}',
    message: ', line 1: authorization.type cannot be Basic: use basic_auth',
  },
  {
    config: 'authorization: {type: "Be arer", credentials_file: password}',
    message: ', line 1: authorization.type must be one word, such as Bearer, got a text',
  },
  { config: 'authorization: {credentials_file: odd-token}', message: /is not fit for an HTTP header$/ },
  { config: 'authorization: {credentials_file: two-lines}', message: /more than one line$/ },
  // TLS.
  { config: 'tls_config: {ca_file: nowhere}', message: /tls_config\.ca_file names .*nowhere: no such file$/ },
  { config: 'tls_config: {ca_file: password}', message: /ca_file names a file that holds no certificates in PEM$/ },
  { config: 'tls_config: {ca_file: garbage.pem}', message: /ca_file names a file that holds no certificates in PEM$/ },
  { config: 'tls_config: {ca_file: client.key}', message: /ca_file names a file that holds no certificates in PEM$/ },
  {
    config: 'tls_config: {cert_file: client.pem}',
    message: ', line 1: tls_config must have both cert_file and key_file',
  },
  {
    config: 'tls_config: {key_file: client.key}',
    message: ', line 1: tls_config must have both cert_file and key_file',
  },
  {
    config: 'tls_config: {cert_file: client.pem, key_file: other.key}',
    message: ', line 1: tls_config.key_file names a key that does not belong to the certificate in client.pem',
  },
  {
    config: 'tls_config: {cert_file: client.pem, key_file: client.pem}',
    message: /key_file names a file that holds no private key in PEM, or an encrypted one$/,
  },
  { config: 'tls_config: {cert_file: client.pem, key_file: locked.key}', message: /or an encrypted one$/ },
  {
    config: 'tls_config: {min_version: TLS11}',
    message: /tls_config\.min_version must be TLS12 or TLS13, got a text$/,
  },
  { config: 'tls_config: {max_version: 1.2}', message: /tls_config\.max_version must be a text, got a number$/ },
  {
    config: 'tls_config: {min_version: TLS13, max_version: TLS12}',
    message: ', line 1: tls_config.min_version is above max_version',
  },
  { config: 'tls_config: {insecure_skip_verify: "yes"}', message: /must be true or false, got a text$/ },
  { config: 'tls_config: {server_name: ""}', message: /tls_config\.server_name must be a text, got a text$/ },
  { config: 'tls_config: {ciphers: x}', message: /^, line 1: tls_config\.ciphers must be absent/ },
  {
    config: 'tls_config: {}',
    url: 'http://p:9090',
    message: ', line 1: tls_config is of no use for http://p:9090: the URL must begin with https',
  },
]) {
  test(`http config: ${JSON.stringify(config).slice(0, 70)} is refused, by name and line`, () => {
    assert.throws(
      () => read(config, url),
      (error: unknown) => {
        assert.ok(error instanceof UsageError, String(error))
        assert.ok(error.message.startsWith(WHAT), error.message)
        const rest = error.message.slice(WHAT.length)
        if (typeof message === 'string') assert.equal(rest, message)
        else assert.match(rest, message)
        assert.doesNotMatch(error.message, /hunter2/)
        return true
      },
    )
  })
}

for (const { missing, reason } of [
  { missing: join(folder, 'nowhere.yml'), reason: 'no such file' },
  { missing: folder, reason: 'not a regular file' },
]) {
  test(`http config: a configuration file that is ${reason} is refused`, () => {
    assert.throws(() => readHttpConfigFile(missing, { flag: '--x', urls: [] }), {
      name: 'UsageError',
      message: `--x: ${missing}: ${reason}`,
    })
  })
}

test('http config: everything at once is taken', () => {
  const { agent, ...access } = read(
    [
      'basic_auth: {username: a, password_file: password}',
      'tls_config:',
      '  ca_file: ca.pem',
      `  cert_file: ${client.certFile}`,
      '  key_file: client.key',
      '  server_name: prometheus.example',
      '  min_version: TLS12',
      '  max_version: TLS13',
      '  insecure_skip_verify: false',
      'http_headers:',
      '  X-Scope-OrgID: {values: [shop]}',
      '  X-Key: {files: [password]}',
      'follow_redirects: false',
      'enable_http2: false',
    ].join('\n'),
  ).current(undefined as never)
  const encoded = Buffer.from('a:hunter2').toString('base64')
  assert.deepEqual(access, {
    authorization: `Basic ${encoded}`,
    headers: [
      { name: 'X-Scope-OrgID', value: 'shop' },
      { name: 'X-Key', value: 'hunter2' },
    ],
    secrets: [encoded, 'hunter2', 'hunter2'],
    warnings: [],
  })
  const { ca, cert, key, servername, rejectUnauthorized, minVersion, maxVersion } = agent?.options ?? {}
  assert.deepEqual(
    { ca, cert, key, servername, rejectUnauthorized, minVersion, maxVersion },
    {
      ca: authority.cert,
      cert: client.cert,
      key: client.key,
      servername: 'prometheus.example',
      rejectUnauthorized: true,
      minVersion: 'TLSv1.2',
      maxVersion: 'TLSv1.3',
    },
  )
})
