import { defineConfig } from 'vitest/config'

const common = {
  include: ['*.test.ts'],
  globalSetup: ['./setup.ts'],
  retry: 0,
  testTimeout: 60_000,
  hookTimeout: 60_000,
}

export default defineConfig({
  test: {
    // Every test runs in both browsers: `npm test -- --project firefox` is for one of them.
    projects: ['chromium', 'firefox'].map((name) => ({ test: { ...common, name, env: { SYNCLINE_BROWSER: name } } })),
    // Two cores: one browser each. More of them at once would measure the machine.
    maxWorkers: 2,
  },
})
