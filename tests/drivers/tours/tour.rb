# ActiveRecord over the gem pg; see transcript.py for what a tour is.
require "json"
require "logger"
require "active_record"

SEEN = Array.new(Integer(ENV["TOUR_CLIENTS"])) { [] }

class Agent < ActiveRecord::Base
  has_many :steps, dependent: :destroy
end

class Step < ActiveRecord::Base
  belongs_to :agent
end

class CreateAgents < ActiveRecord::Migration[6.1]
  def change
    create_table :agents do |t|
      t.string :name, null: false, index: { unique: true }
      t.jsonb :more, default: {}
      t.text :tags, array: true, default: []
      t.timestamps
    end
    create_table :steps do |t|
      t.references :agent, foreign_key: true
      t.decimal :cost, precision: 8, scale: 2
    end
  end
end

class AddIndex < ActiveRecord::Migration[6.1]
  disable_ddl_transaction!
  def change
    add_index :agents, :created_at, algorithm: :concurrently
  end
end

def say(seen, step, *what)
  seen << "#{step}: #{what.map(&:inspect).join(" ").gsub(/(direct|pooled)_\d+/, "SCHEMA")}"
end

# One process is one client: a model of ActiveRecord has one pool.
def tour(number)
  seen = []
  schema = "#{ENV["TOUR_SCHEMA"]}_#{number}"
  ActiveRecord::Base.establish_connection(
    adapter: "postgresql",
    host: ENV["PGHOST"],
    port: ENV["PGPORT"],
    username: ENV["PGUSER"],
    password: ENV["PGPASSWORD"],
    database: ENV["PGDATABASE"],
    schema_search_path: schema,
    pool: 4,
    variables: { statement_timeout: "20s" },
  )
  c = ActiveRecord::Base.connection
  c.execute("set client_min_messages = warning; drop schema if exists #{schema} cascade")
  c.execute("create schema #{schema}")
  migrations = [CreateAgents, AddIndex].each_with_index.map do |migration, n|
    proxy = ActiveRecord::MigrationProxy.new(migration.name, n + 1, "", "")
    proxy.instance_variable_set(:@migration, migration.new(migration.name, n + 1))
    proxy
  end
  ActiveRecord::Migration.verbose = false
  ActiveRecord::SchemaMigration.create_table
  ActiveRecord::InternalMetadata.create_table
  # One advisory lock is for all migrations of a database; who comes second gives up.
  begin
    ActiveRecord::Migrator.new(:up, migrations, ActiveRecord::SchemaMigration).migrate
  rescue ActiveRecord::ConcurrentMigrationError
    sleep 0.05
    retry
  end
  say(seen, "tables", c.tables.sort, c.indexes("agents").map(&:name))
  say(seen, "columns", c.columns("agents").map { |x| [x.name, x.sql_type] })
  20.times do |n|
    steps = [Step.new(cost: 1.5)]
    Agent.create!(name: "agent #{n}", tags: ["a", n.to_s], more: { n: n }, steps: steps)
  end
  8.times do |n|
    say(seen, "found", Agent.find_by(name: "agent #{n}").tags)
    say(seen, "counted", Agent.where("(more->>'n')::int > ?", n).count)
  end
  say(seen, "included", Agent.includes(:steps).order(:id).limit(3).map { |a| a.steps.size })
  rows = (0..5).map { |n| { name: "bulk #{n}", created_at: Time.at(0), updated_at: Time.at(0) } }
  say(seen, "inserted", Agent.insert_all(rows).length)
  begin
    Agent.create!(name: "agent 1")
  rescue ActiveRecord::RecordNotUnique => error
    say(seen, "unique", error.cause.class)
  end
  Agent.transaction do
    Agent.create!(name: "outer")
    begin
      Agent.transaction(requires_new: true) do
        Agent.create!(name: "inner")
        Agent.create!(name: "outer")
      end
    rescue ActiveRecord::RecordNotUnique
      say(seen, "inner", Agent.where(name: %w[inner outer]).count)
    end
    say(seen, "locked", Agent.lock.find_by(name: "outer").name)
    raise ActiveRecord::Rollback
  end
  say(seen, "rolled back", Agent.where(name: %w[inner outer]).count)
  Agent.transaction(isolation: :serializable) do
    say(seen, "isolation", c.select_value("show transaction_isolation"))
  end
  say(seen, "each", Agent.find_each(batch_size: 7).sum { |a| a.tags.size })
  say(seen, "batches", Agent.in_batches(of: 9).update_all(tags: ["x"]))
  %w[search_path timezone statement_timeout standard_conforming_strings].each do |name|
    say(seen, name, c.select_value("show #{name}"))
  end
  c.add_column(:agents, :late, :integer)
  Agent.reset_column_information
  say(seen, "altered", Agent.order(:id).first.attributes.key?("late"))
  pool = ActiveRecord::Base.connection_pool
  threads = 4.times.map do |n|
    Thread.new { pool.with_connection { 5.times.sum { |x| Agent.where("id > ?", x * n).count } } }
  end
  say(seen, "threads", threads.map(&:value))
  say(seen, "active", c.active?)
  c.reset!
  say(seen, "reset", c.select_value("show search_path"))
  ActiveRecord::Base.connection_pool.disconnect!
  seen
rescue StandardError => error
  warn error.full_message
  seen << "ended by: #{error.class} #{error.message}"
end

pipes = SEEN.each_index.map do |number|
  from, to = IO.pipe
  fork { from.close; to.write(JSON.dump(tour(number))); to.close }
  to.close
  from
end
print JSON.dump(pipes.map { |pipe| JSON.parse(pipe.read) })
Process.waitall
