# DBD::Pg; see transcript.py for what a tour is. One process is one client.
use strict;
use warnings;
use utf8;
use DBI;
use DBD::Pg qw(:pg_types :async);
use JSON::PP;

my @seen;
my $schema;

sub say_seen {
    my ($step, @values) = @_;
    my $text = join ' ', map { !defined $_ ? 'undef' : ref $_ ? JSON::PP->new->canonical->encode($_) : $_ } @values;
    $text =~ s/\Q$schema\E/SCHEMA/g;
    push @seen, "$step: $text";
}

sub fails {
    my ($db, $step, $work) = @_;
    eval { $work->(); 1 } ? say_seen($step, 'was not refused') : say_seen($step, $db->state, $db->errstr);
}

sub tour {
    my $db = DBI->connect("dbi:Pg:dbname=$ENV{PGDATABASE};host=$ENV{PGHOST};port=$ENV{PGPORT};options='-c search_path=$schema -c statement_timeout=20s'",
        $ENV{PGUSER}, $ENV{PGPASSWORD}, { RaiseError => 1, PrintError => 0, PrintWarn => 0, AutoCommit => 1, pg_enable_utf8 => 1 });
    $db->do("set client_min_messages = warning");
    $db->do("drop schema if exists $schema cascade");
    $db->do("create schema $schema");
    $db->do("create table item(id int primary key, words text, tags text[], raw bytea)");
    my $sum = $db->prepare("select ?::int + 1, ?::text");
    for my $turn (0 .. 7) {
        $sum->execute($turn, "é");
        say_seen('sum', $sum->fetchrow_array);
        say_seen('other', $db->selectrow_array("select ?::int * 2, current_setting('search_path')", undef, $turn));
    }
    my $insert = $db->prepare("insert into item values (?, ?, ?, ?)");
    $insert->bind_param(4, undef, { pg_type => PG_BYTEA });
    $insert->execute($_, "row $_", ['a', $_], "\0\xff") for 0 .. 30;
    say_seen('rows', $db->selectall_arrayref("select id, words, tags from item where id < 3 order by id"));
    say_seen('many', $db->prepare("insert into item(id) values (?)")->execute_array({ ArrayTupleStatus => [] }, [100 .. 150]));
    for my $text ("select * from absent", "selec", "select 1/0", "insert into item(id) values (null)") {
        fails($db, 'error', sub { $db->do($text) });
        fails($db, 'prepared', sub { my $s = $db->prepare("$text -- ?", { pg_server_prepare => 1 }); $s->execute; });
    }
    $db->begin_work;
    $db->do("insert into item(id) values (200)");
    $db->pg_savepoint('one');
    fails($db, 'unique', sub { $db->do("insert into item(id) values (?)", undef, 200) });
    say_seen('ping', $db->ping, $db->{pg_INV_READ} // '');
    $db->pg_rollback_to('one');
    $db->commit;
    say_seen('kept', $db->selectrow_array("select count(*) from item where id = 200"));
    $db->begin_work;
    $db->do("insert into item(id) values (201)");
    $db->rollback;
    say_seen('rolled back', $db->selectrow_array("select count(*) from item where id = 201"));
    $db->do("copy item(id, words) from stdin");
    $db->pg_putcopydata("$_\trow\n") for 1000 .. 1999;
    $db->pg_putcopyend;
    $db->do("copy (select id from item where id >= 1000 order by id) to stdout");
    my ($line, $bytes) = ('', 0);
    $bytes += length $line while $db->pg_getcopydata($line) >= 0;
    say_seen('copied', $bytes);
    $db->do("select pg_sleep(20)", { pg_async => PG_ASYNC });
    select undef, undef, undef, 0.2;
    say_seen('cancelled', $db->pg_cancel);
    say_seen('usable', $db->selectrow_array("select 1"), $db->ping);
    say_seen('tables', map { $_->[2] } @{ $db->table_info('', $schema, '%', 'TABLE')->fetchall_arrayref });
    say_seen('keys', $db->primary_key('', $schema, 'item'));
    $db->disconnect;
}

my @pipes;
for my $number (0 .. $ENV{TOUR_CLIENTS} - 1) {
    pipe my $from, my $to;
    if (!fork) {
        close $from;
        $schema = "$ENV{TOUR_SCHEMA}_$number";
        eval { tour(); 1 } or do { print STDERR $@; push @seen, "ended by: $@" };
        print {$to} JSON::PP->new->utf8->encode(\@seen);
        close $to;
        exit 0;
    }
    close $to;
    push @pipes, $from;
}
print '[', join(',', map { local $/; readline $_ } @pipes), ']';
1 while wait != -1;
