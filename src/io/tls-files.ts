import { createPrivateKey, type KeyObject, X509Certificate } from 'node:crypto'
import { dirname, resolve } from 'node:path'
import type { SecureVersion } from 'node:tls'

import type { ReadFile } from './secret-file.js'
import { checkKeys, entriesOf, textOf, type YamlField } from './yaml-field.js'

/** A configuration file that names other files. */
export interface ConfigFile {
  readonly path: string
  readonly read: ReadFile
}

/** What stands in the file that a field names, relative to the configuration file that it stands in. */
export function textOfFile(field: YamlField, { path, read }: ConfigFile): string {
  const named = resolve(dirname(path), textOf(field))
  return read(named, (reason) => field.refuse(`names ${named}: ${reason}`))
}

/** Certificates in PEM, at least one, each of which can be read. */
export function certificatesOf(field: YamlField, file: ConfigFile): string {
  const text = textOfFile(field, file)
  const [first] = parsedCertificates(text)
  return first === undefined ? field.refuse('names a file that holds no certificates in PEM') : text
}

/** A certificate, with those that it hangs on if need be, and its private key, both in PEM. */
export function keyPairOf(
  { cert, key }: { readonly cert: YamlField; readonly key: YamlField },
  file: ConfigFile,
): { readonly cert: string; readonly key: string } {
  const certText = certificatesOf(cert, file)
  const keyText = textOfFile(key, file)
  const parsed = parsedKey(keyText)
  if (parsed === null) return key.refuse('names a file that holds no private key in PEM, or an encrypted one')
  if (parsedCertificates(certText)[0]?.checkPrivateKey(parsed) !== true) {
    return key.refuse(`names a key that does not belong to the certificate in ${textOf(cert)}`)
  }
  return { cert: certText, key: keyText }
}

const VERSIONS: Readonly<Record<string, SecureVersion>> = { TLS12: 'TLSv1.2', TLS13: 'TLSv1.3' }

export interface TlsVersions {
  readonly minVersion: SecureVersion
  readonly maxVersion: SecureVersion
}

/** From `min_version` and `max_version`. What is older than TLS 1.2 is not safe. */
export function tlsVersionsOf(section: YamlField): TlsVersions {
  const version = (field: YamlField, otherwise: SecureVersion): SecureVersion =>
    field.value === undefined ? otherwise : (VERSIONS[textOf(field)] ?? field.fail('TLS12 or TLS13'))
  const minVersion = version(section.at('min_version'), 'TLSv1.2')
  const maxVersion = version(section.at('max_version'), 'TLSv1.3')
  if (minVersion > maxVersion) section.at('min_version').refuse('is above max_version')
  return { minVersion, maxVersion }
}

/**
 * Refuses every key that is not in `allowed`.
 *
 * @param unsupported - keys that the ecosystem's format has and we have not, with what to do instead
 */
export function checkSection(
  section: YamlField,
  allowed: readonly string[],
  unsupported: Readonly<Record<string, string>>,
): void {
  for (const [key, field] of entriesOf(section)) {
    const reason = Object.hasOwn(unsupported, key) ? unsupported[key] : undefined
    if (reason !== undefined) field.refuse(reason)
  }
  checkKeys(section, allowed)
}

/** For a switch of the ecosystem's format that we have not: it may be left out, or be false. */
export function mustBeOff(field: YamlField, because: string): void {
  if (field.value !== undefined && field.value !== false) field.refuse(`must be false or left out: ${because}`)
}

function parsedCertificates(text: string): readonly X509Certificate[] {
  const blocks = text.match(/-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----/g) ?? []
  try {
    return blocks.map((block) => new X509Certificate(block))
  } catch {
    return []
  }
}

function parsedKey(text: string): KeyObject | null {
  try {
    return createPrivateKey(text)
  } catch {
    return null
  }
}
