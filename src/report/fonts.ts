import { fileURLToPath } from 'node:url'

/** Arimo, which comes with us: a small machine or an image has no fonts, and a picture shall be the same everywhere. */
export const FONT_FILES: readonly string[] = ['400Regular/Arimo_400Regular.ttf', '700Bold/Arimo_700Bold.ttf'].map(
  (file) => fileURLToPath(import.meta.resolve(`@expo-google-fonts/arimo/${file}`)),
)
